/**
 * The spans of a session as rows over time. Only the rows in view are in the page, at a fixed height, so
 * ten thousand cost what fifty do; the tree, its order and the range to mount are decided in rows.js.
 *
 * @import { OpenedView } from "./types.d.ts"
 * @import { Table } from "./rows.js"
 * @import { SessionDetail } from "./types.d.ts"
 */
import { html, useEffect, useLayoutEffect, useMemo, useRef, useSignal } from "../vendor/preact-11.2.0.js";
import { compact, count, duration, isGrowing, kindClass, nsBetween, plural, tickLabel } from "./format.js";
import { useKeys } from "./keys.js";
import { Minimap } from "./minimap.js";
import { adjust, remember, remembered } from "./nav.js";
import { Kind, Text } from "./parts.js";
import { find, Flag, mounted, nextRow, parents, revealed, scrollTo, shownFor, visibleRows } from "./rows.js";
import { endOf, extent, idleGaps, Scale } from "./scale.js";
import { FLAG_WORDS, SpanPanel } from "./span.js";
import { now, query } from "./state.js";

const ROW = 26; // px, as --row in the stylesheet
const AROUND = 8; // rows mounted beyond the edge
const INDENT = 14; // px a level
const DEEPEST = 16; // levels that are indented; below, the depth is printed
const IDLE_SHARE = 0.15; // of the whole, for a gap worth compressing
const TICK_WIDTH = 84; // px: a label and some air

/** Until when an open span is known to have been open, as an offset. @param {SessionDetail} s @param {string} base @param {number} at Unix ms */
function openUntil(s, base, at) {
  if (isGrowing(s)) return at * 1e6 - Number(base);
  return nsBetween(base, s.state === "ended" ? s.ended_at ?? s.last_seen_at : s.last_seen_at);
}

/** What an open span is called, by what is known of its session. @param {SessionDetail} s */
function openWord(s) {
  if (isGrowing(s)) return "open";
  return s.state === "ended" ? "never ended" : s.state;
}

/** @param {{ opened: OpenedView, table: Table, session: SessionDetail }} props */
export function Waterfall({ opened, table, session }) {
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const top = useSignal(0);
  const height = useSignal(600);
  const width = useSignal(600);
  const squeeze = useSignal(false);
  const arrived = useSignal(0);
  const version = opened.version.value;
  const collapsed = opened.collapsed.value;
  const unfolded = opened.unfolded.value;
  const live = isGrowing(session);
  const until = openUntil(session, table.base, live ? now.value : 0);

  const visible = useMemo(() => visibleRows(table, collapsed, unfolded), [
    table,
    version,
    collapsed,
    unfolded,
  ]);
  const whole = useMemo(() => {
    const [from, to] = extent(table, until);
    return /** @type {[number, number]} */ ([from, live ? Math.max(to, until) : to]);
  }, [table, version, until]);
  const gaps = useMemo(() => idleGaps(table, until, whole, IDLE_SHARE), [table, version, whole]);
  const idle = gaps.reduce((sum, [a, b]) => sum + b - a, 0) / (whole[1] - whole[0]);
  const window = windowFrom(table.base, whole);
  const scale = useMemo(() => new Scale(window[0], window[1], squeeze.value ? gaps : []), [
    ...window,
    squeeze.value,
    gaps,
  ]);
  const map = useMemo(() => new Scale(whole[0], whole[1]), [whole]);
  const finding = query.value.get("find") ?? "";
  const hits = useMemo(() => find(table, finding), [table, version, finding]);
  const errors = useMemo(() => table.order.filter((row) => table.failed(row)).length, [table, version]);

  const ticks = Math.max(2, Math.floor(width.value / TICK_WIDTH));

  const spanId = query.value.get("span");
  const selected = spanId ? table.rowOf(spanId) : -1;
  const detail = selected >= 0 && query.value.get("detail") === "1";

  /** Bring a row into view, opening what hides it. @param {number} row */
  const reveal = (row) => {
    const open = revealed(table, opened.collapsed.peek(), row);
    if (open.size !== opened.collapsed.peek().size) opened.collapsed.value = open;
    const first = table.head[row];
    if (first >= 0 && first !== row) opened.unfolded.value = new Set(opened.unfolded.peek()).add(first);
    const at = visibleRows(table, open, opened.unfolded.peek()).indexOf(row);
    const box = scroller.current;
    if (box && at >= 0) box.scrollTop = scrollTo(at, box.scrollTop, box.clientHeight, ROW);
  };
  /** @param {number} row */
  const select = (row) => {
    if (row < 0) return;
    adjust({ span: table.id[row] });
    reveal(row);
  };
  /** @param {number} row */
  const openDetail = (row) => adjust({ span: table.id[row], detail: "1" }, { push: !detail });
  /** Open or close what is below a row, or the repeats it stands for. @param {number} row */
  const toggle = (row) => {
    const set = table.repeats[row] ? opened.unfolded : opened.collapsed;
    const next = new Set(set.peek());
    if (!next.delete(row)) next.add(row);
    set.value = next;
  };
  /** Undefined for a row that has nothing to open. @param {number} row */
  const expanded = (row) =>
    table.repeats[row] ? unfolded.has(row) : table.children[row] ? !collapsed.has(row) : undefined;
  const collapseAll = () => {
    opened.collapsed.value = parents(table, 1);
    opened.unfolded.value = new Set();
  };
  const expandAll = () => {
    opened.collapsed.value = new Set();
    opened.unfolded.value = new Set(table.order.filter((row) => table.repeats[row] > 0));
  };
  /** @param {number} by */
  const step = (by) => {
    const at = visible.indexOf(selected < 0 ? -1 : shownFor(table, visible, selected));
    const next = at < 0 ? (by > 0 ? 0 : visible.length - 1) : at + by;
    select(visible[Math.max(0, Math.min(visible.length - 1, next))] ?? -1);
  };
  const page = () => Math.max(1, Math.floor(height.value / ROW) - 1);
  /** @param {number} factor */
  const zoom = (factor) => {
    const at = selected >= 0
      ? (table.start[selected] + endOf(table, selected, until)) / 2
      : (window[0] + window[1]) / 2;
    const half = Math.max(500, ((window[1] - window[0]) * factor) / 2);
    const middle = Math.min(Math.max(at, window[0]), window[1]);
    choose(middle - half, middle + half);
  };
  /** @param {number} from @param {number} to */
  const choose = (from, to) => {
    const [a, b] = [Math.max(from, whole[0]), Math.min(to, whole[1])];
    if (a <= whole[0] && b >= whole[1]) return fit();
    adjust({ from: at(table.base, a), to: at(table.base, b) });
  };
  const fit = () => adjust({ from: null, to: null });
  useKeys({
    next: () => step(1),
    previous: () => step(-1),
    first: () => select(visible[0] ?? -1),
    last: () => select(visible[visible.length - 1] ?? -1),
    pageDown: () => step(page()),
    pageUp: () => step(-page()),
    collapse: () => {
      if (selected < 0) return;
      const first = table.head[selected];
      if (expanded(selected)) toggle(selected);
      else select(first >= 0 && first !== selected ? first : table.parent[selected]);
    },
    expand: () => {
      if (selected < 0) return;
      if (expanded(selected) === false) toggle(selected);
      else if (expanded(selected)) step(1);
    },
    collapseAll,
    expandAll,
    open: () => selected >= 0 && openDetail(selected),
    back: () => (detail ? adjust({ detail: null }) : adjust({ span: null })),
    nextHit: () => select(nextRow(table.order, selected, 1, (row) => hits.has(row))),
    previousHit: () => select(nextRow(table.order, selected, -1, (row) => hits.has(row))),
    nextError: () => select(nextRow(table.order, selected, 1, (row) => table.failed(row))),
    fit,
    zoomIn: () => zoom(0.5),
    zoomOut: () => zoom(2),
  });

  useScrollKept(scroller, table, visible, top, arrived);
  useEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const watch = new ResizeObserver(() => {
      height.value = box.clientHeight;
      width.value = box.querySelector(".wf-lines > div")?.clientWidth ?? 600;
    });
    watch.observe(box);
    if (selected >= 0 && remembered("rows") === undefined) reveal(selected);
    return () => watch.disconnect();
  }, []);
  const frame = useRef(0);
  const onScroll = () => {
    frame.current ||= requestAnimationFrame(() => {
      frame.current = 0;
      top.value = scroller.current?.scrollTop ?? 0;
      remember({ rows: top.value });
    });
  };

  const [from, to] = mounted(top.value, height.value, ROW, visible.length, AROUND);
  /** @type {[number, number][]} */
  const shown = [];
  for (let i = from; i < to; i++) shown.push([i, visible[i]]);
  const activeAt = selected < 0 ? -1 : visible.indexOf(selected);
  if (activeAt >= 0 && (activeAt < from || activeAt >= to)) shown.push([activeAt, selected]);
  return html`
    <div class=${`split ${detail ? "with-panel" : ""}`}>
      <div class="waterfall">
        <div class="wf-head">
          <div class="wf-sum"><${Sum} table=${table} errors=${errors} hits=${finding ? hits.size : -1}
            next=${() => select(nextRow(table.order, selected, 1, (row) => hits.has(row)))}
            nextError=${() => select(nextRow(table.order, selected, 1, (row) => table.failed(row)))} /></div>
          <div class="wf-map">
            <${Minimap} table=${table} version=${version} whole=${map} view=${window} openUntil=${until} choose=${choose} fit=${fit} />
            <${Axis} scale=${scale} zero=${whole[0]} ticks=${ticks} />
          </div>
          <div class="wf-tools">
            <button class="icon" title="Collapse all ([)" aria-label="Collapse all" onClick=${() => (opened
              .collapsed.value = parents(table, 1))}>⊟</button>
            <button class="icon" title="Expand all (])" aria-label="Expand all" onClick=${() => (opened
              .collapsed.value = new Set())}>⊞</button>
            <button class="icon" title="Fit everything (f)" aria-label="Fit everything" onClick=${fit}>⇔</button>
          </div>
        </div>
        <div class="wf-scroll" ref=${scroller} role="treegrid" tabindex="0" aria-label="Spans" aria-rowcount=${visible
          .length}
          aria-activedescendant=${activeAt >= 0
            ? `row-${selected}`
            : undefined} aria-multiselectable="false" onScroll=${onScroll}>
          <div class="wf-space" role="rowgroup" style=${{ blockSize: `${visible.length * ROW}px` }}>
            <${Lines} scale=${scale} zero=${whole[0]} ticks=${ticks} />
            ${shown.map(([position, row]) =>
              html`
                <${Row} key=${row} table=${table} row=${row} position=${position} scale=${scale}
                  until=${until} openWord=${openWord(session)}
                  version=${version} selected=${row === selected} expanded=${expanded(row)}
                  hit=${hits.has(row)} dim=${finding !== "" &&
                    !hits.has(row)} select=${openDetail} toggle=${toggle} />
              `
            )}
          </div>
        </div>
        ${arrived.value
          ? html`<button class="chip new wf-new" onClick=${() => {
            arrived.value = 0;
            if (scroller.current) scroller.current.scrollTop = visible.length * ROW;
          }}>${plural(arrived.value, "new span")} ↓</button>`
          : null}
        <div class="wf-foot">
          <${Legend} table=${table} version=${version} />
          ${idle >= 0.3
            ? html`<span class="idle-note">${
              Math.floor(idle * 100)
            } % idle · <button class="plain link" aria-pressed=${squeeze.value}
          onClick=${() => (squeeze.value = !squeeze.value)}>${
              squeeze.value ? "show true time" : "compress"
            }</button></span>`
            : null}
        </div>
      </div>
      ${detail
        ? html`
          <${SpanPanel} key="panel" trace=${table.traceOf(selected)} span=${table.id[selected]} name=${table
            .nameOf(selected)}
            category=${table.categoryOf(selected)} revision=${changeOf(table, selected)} close=${() =>
              adjust({ detail: null })} />
        `
        : null}
    </div>
  `;
}

/** Differs when a row's own values do: an open detail is then read again. @param {Table} table @param {number} row */
function changeOf(table, row) {
  return table.flags[row] * 4 + table.status[row] + (Number.isNaN(table.duration[row]) ? 0.5 : 0);
}

/** The part of time that is shown; all of it where the address does not say. @param {string} base @param {[number, number]} whole @returns {[number, number]} */
function windowFrom(base, whole) {
  const offset = (/** @type {string} */ name, /** @type {number} */ otherwise) => {
    const ns = query.value.get(name);
    return ns && /^\d{1,20}$/.test(ns) ? nsBetween(base, ns) : otherwise;
  };
  const from = Math.max(whole[0], offset("from", whole[0]));
  const to = Math.min(whole[1], offset("to", whole[1]));
  return to > from ? [from, to] : whole;
}

/** An offset as absolute ns. @param {string} base @param {number} offset */
function at(base, offset) {
  return String(BigInt(base) + BigInt(Math.round(offset)));
}

/**
 * Keep what is read where it is when rows come in above it; follow only a reader who is at the bottom.
 *
 * @param {{ current: HTMLElement | null }} scroller
 * @param {Table} table
 * @param {Int32Array} visible
 * @param {{ value: number }} top
 * @param {{ value: number, peek: () => number }} arrived
 */
function useScrollKept(scroller, table, visible, top, arrived) {
  const before = useRef(
    /** @type {{ table: Table, visible: Int32Array, n: number, top: number, height: number } | null} */ (null),
  );
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const old = before.current;
    if (!old || old.table !== table) {
      box.scrollTop = remembered("rows") ?? 0;
    } else if (old.visible !== visible) {
      const atBottom = old.top > 0 && old.top + old.height >= old.visible.length * ROW - ROW;
      const grown = table.n - old.n;
      const first = old.visible[Math.floor(old.top / ROW)];
      const moved = first === undefined ? -1 : visible.indexOf(first);
      if (grown > 0 && atBottom) box.scrollTop = visible.length * ROW;
      else if (moved >= 0) {
        const by = moved * ROW - Math.floor(old.top / ROW) * ROW;
        if (by !== 0) box.scrollTop = old.top + by;
        if (grown > 0 && visible.length * ROW > box.clientHeight) arrived.value = arrived.peek() + grown;
      }
    }
    top.value = box.scrollTop;
    before.current = { table, visible, n: table.n, top: box.scrollTop, height: box.clientHeight };
  }, [table, visible]);
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box || !before.current) return;
    before.current.top = top.value;
    before.current.height = box.clientHeight;
    if (arrived.peek() && top.value + box.clientHeight >= visible.length * ROW - ROW) arrived.value = 0;
  }, [top.value]);
}

/** @param {{ table: Table, errors: number, hits: number, next: () => void, nextError: () => void }} props */
function Sum({ table, errors, hits, next, nextError }) {
  return html`
    <span>${plural(table.order.length, "row")}</span>
    ${errors
      ? html`<button class="plain err" title="Next error (e)" onClick=${nextError}>! ${
        plural(errors, "error")
      }</button>`
      : null}
    <span role="status">${hits >= 0
      ? html`<button class="plain link" title="Next hit (n)" onClick=${next}>${plural(hits, "hit")}</button>`
      : null}</span>
  `;
}

/** @param {{ scale: Scale, zero: number, ticks: number }} props */
function Axis({ scale, zero, ticks }) {
  return html`<div class="wf-axis" aria-hidden="true">${
    scale.ticks(zero, ticks).map((tick) =>
      html`<span key=${tick} style=${{ insetInlineStart: `${scale.at(zero + tick) * 100}%` }}>${
        tickLabel(tick)
      }</span>`
    )
  }</div>`;
}

/** A line through all rows at each time of the axis, and the squeezed gaps. @param {{ scale: Scale, zero: number, ticks: number }} props */
function Lines({ scale, zero, ticks }) {
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
 * One row. Its element is found by id, so that the grid can name it as active.
 *
 * @param {{ table: Table, row: number, position: number, scale: Scale, until: number, openWord: string, version: number,
 *   selected: boolean, expanded: boolean | undefined, hit: boolean, dim: boolean,
 *   select: (row: number) => void, toggle: (row: number) => void }} props
 */
function Row({ table, row, position, scale, until, openWord, selected, expanded, hit, dim, select, toggle }) {
  const missing = table.is(row, Flag.PLACEHOLDER);
  const open = table.is(row, Flag.OPEN);
  const bad = table.failed(row);
  const folded = table.repeats[row] > 0 && expanded === false;
  const depth = table.depth[row];
  const classes = ["r", bad && "bad", missing && "missing", hit && "hit", dim && "dim"].filter(Boolean).join(
    " ",
  );
  const length = endOf(table, row, until) - table.start[row];
  return html`
    <div id=${`row-${row}`} class=${classes} role="row" aria-level=${depth + 1} aria-setsize=${table
      .siblings[row]}
      aria-posinset=${table.place[row]} aria-rowindex=${position +
        1} aria-expanded=${expanded} aria-selected=${selected}
      style=${{ transform: `translateY(${position * ROW}px)` }} onClick=${() => select(row)}>
      <span class="label" role="gridcell" style=${{
        paddingInlineStart: `${Math.min(depth, DEEPEST) * INDENT}px`,
      }}>
        <span class="tw" aria-hidden="true" onClick=${(/** @type {Event} */ event) => {
          if (expanded === undefined) return;
          event.stopPropagation();
          toggle(row);
        }}>${expanded === undefined ? "" : expanded ? "▾" : "▸"}</span>
        ${depth > DEEPEST ? html`<small class="deep">${depth}</small>` : null}
        <${Kind} category=${missing ? "missing" : table.categoryOf(row)} />
        <em>${bad ? html`<span class="mark" aria-label="error">!</span>` : null}${missing
          ? html`missing span <span class="mono"><${Text} value=${table.id[row].slice(0, 8)} /></span>`
          : html`<${Text} value=${table.nameOf(row) || "unnamed span"} />`}</em>
        <${Notes} table=${table} row=${row} expanded=${expanded} />
      </span>
      <span class="track" role="gridcell"
        aria-hidden="true"><${Bar} table=${table} row=${row} scale=${scale} until=${until} folded=${folded} live=${openWord ===
          "open"} /></span>
      <span class="d" role="gridcell">${missing
        ? ""
        : open
        ? html`<span class=${openWord === "open" ? "running" : "lost"} title=${
          duration(length)
        }>${openWord}</span>`
        : folded
        ? html`<span title=${`${count(table.repeats[row])} spans, together`}>Σ ${
          duration(table.together[row])
        }</span>`
        : duration(table.duration[row])}</span>
    </div>
  `;
}

/** What is said in small beside a name. @param {{ table: Table, row: number, expanded: boolean | undefined }} props */
function Notes({ table, row, expanded }) {
  const label = table.labelOf(row);
  const total = (table.input[row] || 0) + (table.output[row] || 0);
  const told = !Number.isNaN(table.input[row]) || !Number.isNaN(table.output[row]);
  const notes = [
    table.repeats[row] && !expanded && `× ${count(table.repeats[row])}`,
    label && !table.nameOf(row).includes(label) && label,
    told && table.categoryOf(row) !== "session" && compact(total),
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
function Legend({ table, version }) {
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
