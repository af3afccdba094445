/**
 * What one row of the waterfall is made of, and what stands behind and above all of them.
 *
 * @import { Table } from "./rows.js"
 * @import { Scale } from "./scale.js"
 */
import { html, useMemo } from "../vendor/preact-11.2.0.js";
import { compact, count, duration, kindClass, tickLabel } from "./format.js";
import { Kind, Text } from "./parts.js";
import { Flag } from "./flags.js";
import { endOf } from "./scale.js";
import { FLAG_WORDS } from "./span.js";
import { ROW } from "./view.js";

const INDENT = 14; // px a level
const DEEPEST = 16; // levels that are indented; below, the depth is printed

/** @param {{ scale: Scale, zero: number, ticks: number }} props */
export function Axis({ scale, zero, ticks }) {
  return html`<div class="wf-axis" aria-hidden="true">${
    scale.ticks(zero, ticks).map((tick) =>
      html`<span key=${tick} style=${{ insetInlineStart: `${scale.at(zero + tick) * 100}%` }}>${
        tickLabel(tick)
      }</span>`
    )
  }</div>`;
}

/** A line through all rows at each time of the axis, and the squeezed gaps. @param {{ scale: Scale, zero: number, ticks: number }} props */
export function Lines({ scale, zero, ticks }) {
  return html`
    <div class="wf-lines" role="presentation">
      <div>${scale.ticks(zero, ticks).map((tick) =>
        html`<i style=${{ insetInlineStart: `${scale.at(zero + tick) * 100}%` }}></i>`
      )}${scale.gaps.map(([from, to]) =>
        html`<i class="gap" title=${`${duration(to - from)} idle`} style=${{
          insetInlineStart: `${scale.at(from) * 100}%`,
          inlineSize: `${(scale.at(to) - scale.at(from)) * 100}%`,
        }}></i>`
      )}</div>
    </div>
  `;
}

/**
 * @typedef {object} RowProps
 * @property {Table} table
 * @property {number} row
 * @property {number} position among the visible rows
 * @property {Scale} scale
 * @property {number} until when an open span was last known to be open
 * @property {string} openWord what an open span is called
 * @property {boolean} selected
 * @property {boolean | undefined} expanded undefined where there is nothing to open
 * @property {boolean} hit
 * @property {boolean} dim
 * @property {(row: number) => void} select
 * @property {(row: number) => void} toggle
 */

/** One row. Its element is found by id, so that the grid can name it as active. @param {RowProps} props */
export function Row(props) {
  const { table, row, position, scale, until, openWord, selected, expanded, hit, dim, select } = props;
  const classes = [
    "r",
    table.failed(row) && "bad",
    table.is(row, Flag.PLACEHOLDER) && "missing",
    hit && "hit",
    dim && "dim",
  ].filter(Boolean).join(" ");
  const folded = table.repeats[row] > 0 && expanded === false;
  return html`
    <div id=${`row-${row}`} class=${classes} role="row" style=${{
      transform: `translateY(${position * ROW}px)`,
    }}
      aria-level=${table.depth[row] + 1} aria-setsize=${table.siblings[row]} aria-posinset=${table.place[row]}
      aria-rowindex=${position + 1} aria-expanded=${expanded} aria-selected=${selected} onClick=${() =>
        select(row)}>
      <${Label} ...${props} />
      <span class="track" role="gridcell"
        aria-hidden="true"><${Bar} table=${table} row=${row} scale=${scale}
        until=${until} folded=${folded} live=${openWord === "open"} /></span>
      <span class="d"
        role="gridcell"><${Length} table=${table} row=${row} until=${until} folded=${folded}
        openWord=${openWord} /></span>
    </div>
  `;
}

/** Triangle, kind and name. @param {RowProps} props */
function Label({ table, row, expanded, toggle }) {
  const missing = table.is(row, Flag.PLACEHOLDER);
  const depth = table.depth[row];
  /** @param {Event} event */
  const turn = (event) => {
    if (expanded === undefined) return;
    event.stopPropagation();
    toggle(row);
  };
  const name = missing
    ? html`missing span <span class="mono"><${Text} value=${table.id[row].slice(0, 8)} /></span>`
    : html`<${Text} value=${table.nameOf(row) || "unnamed span"} />`;
  return html`
    <span class="label" role="gridcell" style=${{
      paddingInlineStart: `${Math.min(depth, DEEPEST) * INDENT}px`,
    }}>
      <span class="tw" aria-hidden="true" onClick=${turn}>${expanded === undefined
        ? ""
        : expanded
        ? "▾"
        : "▸"}</span>
      ${depth > DEEPEST ? html`<small class="deep">${depth}</small>` : null}
      <${Kind} category=${missing ? "missing" : table.categoryOf(row)} />
      <em>${table.failed(row) ? html`<span class="mark" aria-label="error">!</span>` : null}${name}</em>
      ${table.repeats[row] > 0 && expanded === false
        ? html`<small class="times" title="Show each of them" onClick=${turn}>× ${
          count(table.repeats[row])
        }</small>`
        : null}
      <${Notes} table=${table} row=${row} expanded=${expanded} />
    </span>
  `;
}

/** How long; of repeats, how long together; of an open span, what is known. @param {{ table: Table, row: number, until: number, folded: boolean, openWord: string }} props */
function Length({ table, row, until, folded, openWord }) {
  if (table.is(row, Flag.PLACEHOLDER)) return null;
  if (folded) {
    return html`<span title=${`${count(table.repeats[row])} spans, together`}>Σ ${
      duration(table.together[row])
    }</span>`;
  }
  if (!table.is(row, Flag.OPEN)) return duration(table.duration[row]);
  const length = endOf(table, row, until) - table.start[row];
  return html`<span class=${openWord === "open" ? "running" : "lost"} title=${
    duration(length)
  }>${openWord}</span>`;
}

/** What is said in small beside a name. @param {{ table: Table, row: number, expanded: boolean | undefined }} props */
function Notes({ table, row, expanded }) {
  const label = table.labelOf(row);
  const used = table.repeats[row] > 0 && expanded === false ? table.used[row] : table.tokensOf(row);
  const notes = [
    label && !table.nameOf(row).includes(label) && label,
    !Number.isNaN(used) && table.categoryOf(row) !== "session" && compact(used),
    ...FLAG_WORDS.map(([flag, word]) => table.is(row, flag) && word),
    expanded === false && !table.repeats[row] && `+${count(table.children[row])}`,
  ].filter(Boolean);
  return notes.length ? html`<small><${Text} value=${notes.join(" · ")} /></small>` : null;
}

/** @param {{ table: Table, row: number, scale: Scale, until: number, live: boolean, folded: boolean }} props */
function Bar({ table, row, scale, until, live, folded }) {
  const missing = table.is(row, Flag.PLACEHOLDER);
  const end = folded ? table.reach[row] : missing ? table.start[row] : endOf(table, row, until);
  const from = Math.max(0, scale.at(table.start[row]));
  const to = Math.min(1, scale.at(end));
  if (from > 1 || to < 0) return null;
  const look = missing ? "k-missing" : table.failed(row) ? "k-bad" : kindClass(table.categoryOf(row));
  const form = folded ? "many" : table.is(row, Flag.OPEN) ? (live ? "open" : "open cut") : "";
  return html`<i class=${`${look} ${form}`} style=${{
    left: `${from * 100}%`,
    width: `${Math.max(0, to - from) * 100}%`,
  }}></i>`;
}

/** The kinds of work that occur here, named beside their colours. @param {{ table: Table, version: number }} props */
export function Legend({ table, version }) {
  const kinds = useMemo(() => {
    const seen = new Set();
    for (const row of table.order) if (!table.is(row, Flag.PLACEHOLDER)) seen.add(table.category[row]);
    return [...seen].sort((a, b) => a - b).map((index) => table.words.categories.list[index]);
  }, [table, version]);
  return html`<span class="legend">${
    kinds.map((kind) =>
      html`<span><i class=${`k ${kindClass(kind)}`} aria-hidden="true"></i><${Text} value=${kind} /></span>`
    )
  }</span>`;
}
