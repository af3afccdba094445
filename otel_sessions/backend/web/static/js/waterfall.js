/**
 * The spans of a session as rows over time. Only the rows in view are in the page, at a fixed height, so
 * ten thousand cost what fifty do; the tree, its order and the range to mount are decided in rows.js.
 *
 * @import { OpenedView } from "./types.d.ts"
 * @import { Table } from "./rows.js"
 */
import { html, useEffect, useLayoutEffect, useMemo, useRef } from "../vendor/preact-11.2.0.js";
import { plural } from "./format.js";
import { useKeys } from "./keys.js";
import { Minimap } from "./minimap.js";
import { remember, remembered } from "./nav.js";
import { Axis, Legend, Lines, Row } from "./row.js";
import { SpanPanel } from "./span.js";
import { ROW, View } from "./view.js";

const WORTH_TELLING = 0.3; // share of idle time

/** @param {{ opened: OpenedView }} props */
export function Waterfall({ opened }) {
  const view = useMemo(() => new View(opened), [opened]);
  useKeys({
    next: () => view.step(1),
    previous: () => view.step(-1),
    first: () => view.select(view.visible.value[0] ?? -1),
    last: () => view.select(view.visible.value.at(-1) ?? -1),
    pageDown: () => view.step(view.page),
    pageUp: () => view.step(-view.page),
    collapse: () => view.inward(),
    expand: () => view.outward(),
    collapseAll: () => view.collapseAll(),
    expandAll: () => view.expandAll(),
    open: () => view.selected.value >= 0 && view.open(view.selected.value),
    back: () => view.back(),
    nextHit: () => view.nextHit(1),
    previousHit: () => view.nextHit(-1),
    nextError: () => view.nextError(),
    fit: () => view.fit(),
    zoomIn: () => view.zoom(0.5),
    zoomOut: () => view.zoom(2),
  });
  const { table } = view;
  const row = view.selected.value;
  return html`
    <div class=${`split ${view.detail.value ? "with-panel" : ""}`}>
      <div class="waterfall">
        <${Head} view=${view} />
        <${Grid} view=${view} />
        ${view.arrived.value
          ? html`<button class="chip new wf-new" onClick=${() => view.toEnd()}>${
            plural(view.arrived.value, "new span")
          } ↓</button>`
          : null}
        <div class="wf-foot">
          <${Legend} table=${table} version=${opened.version.value} />
          <${Idle} view=${view} />
        </div>
      </div>
      ${view.detail.value
        ? html`
          <${SpanPanel} key="panel" trace=${table.traceOf(row)} span=${table.id[row]} name=${table.nameOf(
            row,
          )}
            category=${table.categoryOf(row)} revision=${changeOf(table, row)} close=${() => view.back()} />
        `
        : null}
    </div>
  `;
}

/** Differs when a row's own values do: an open detail is then read again. @param {Table} table @param {number} row */
function changeOf(table, row) {
  return `${table.flags[row]} ${table.status[row]} ${table.duration[row]}`;
}

/** Sums, map, axis and tools. @param {{ view: View }} props */
function Head({ view }) {
  return html`
    <div class="wf-head">
      <div class="wf-sum">
        <${Sum} view=${view} />
      </div>
      <div class="wf-map">
        <${Minimap} table=${view.table} version=${view.opened.version.value} whole=${view.map.value}
          view=${view.window.value} openUntil=${view.until.value} fit=${() => view.fit()}
          choose=${(/** @type {number} */ from, /** @type {number} */ to) => view.choose(from, to)} />
        <${Axis} scale=${view.scale.value} zero=${view.whole.value[0]} ticks=${view.ticks.value} />
      </div>
      <div class="wf-tools">
        <${Tool} glyph="⊟" word="Collapse all" key_="[" act=${() => view.collapseAll()} />
        <${Tool} glyph="⊞" word="Expand all" key_="]" act=${() => view.expandAll()} />
        <${Tool} glyph="⇔" word="Fit everything" key_="f" act=${() => view.fit()} />
      </div>
    </div>
  `;
}

/** @param {{ glyph: string, word: string, key_: string, act: () => void }} props */
function Tool({ glyph, word, key_, act }) {
  return html`<button class="icon" title=${`${word} (${key_})`} aria-label=${word} onClick=${act}>${glyph}</button>`;
}

/** @param {{ view: View }} props */
function Sum({ view }) {
  const errors = view.errors.value;
  const hits = view.finding.value ? view.hits.value.size : -1;
  return html`
    <span>${plural(view.table.order.length, "row")}</span>
    ${errors
      ? html`<button class="plain err" title="Next error (e)" onClick=${() => view.nextError()}>! ${
        plural(errors, "error")
      }</button>`
      : null}
    <span role="status">${hits >= 0
      ? html`<button class="plain link" title="Next hit (n)" onClick=${() => view.nextHit(1)}>${
        plural(hits, "hit")
      }</button>`
      : null}</span>
  `;
}

/** The rows themselves. @param {{ view: View }} props */
function Grid({ view }) {
  const scroller = useScrollKept(view);
  const { table } = view;
  const [visible, selected] = [view.visible.value, view.selected.value];
  const select = (/** @type {number} */ row) => view.open(row);
  const toggle = (/** @type {number} */ row) => view.toggle(row);
  return html`
    <div class="wf-scroll" ref=${scroller} role="treegrid" tabindex="0" aria-label="Spans"
      aria-rowcount=${visible.length}
      aria-multiselectable="false" aria-activedescendant=${visible.includes(selected)
        ? `row-${selected}`
        : undefined}>
      <div class="wf-space" role="rowgroup" style=${{ blockSize: `${visible.length * ROW}px` }}>
        <${Lines} scale=${view.scale.value} zero=${view.whole.value[0]} ticks=${view.ticks.value} />
        ${view.mounted.value.map(([position, row]) =>
          html`
            <${Row} key=${row} table=${table} row=${row} position=${position} scale=${view.scale.value}
              until=${view.until.value} openWord=${view.openWord.value} selected=${row === selected}
              expanded=${view.expanded(row)} hit=${view.lit.value.has(row)}
              dim=${view.finding.value !== "" &&
                !view.lit.value.has(row)} select=${select} toggle=${toggle} />
          `
        )}
      </div>
    </div>
  `;
}

/** Most of the time nothing happened: offer to squeeze it, and say how much that is. @param {{ view: View }} props */
function Idle({ view }) {
  if (view.idle.value < WORTH_TELLING) return null;
  const word = view.squeezed.value ? "show true time" : "compress";
  return html`<span class="idle-note">${Math.floor(view.idle.value * 100)} % idle · <button class="plain link"
    aria-pressed=${view.squeezed.value} onClick=${() => (view.squeezed.value = !view.squeezed
    .value)}>${word}</button></span>`;
}

/**
 * Scroll with the reader: keep what is read where it is when rows come in above it, follow only who is at
 * the bottom, and remember the place with this entry of the history.
 *
 * @param {View} view
 */
function useScrollKept(view) {
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const before = useRef(/** @type {{ table: Table, visible: Int32Array, n: number } | null} */ (null));
  const { table } = view;
  const visible = view.visible.value;
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const old = before.current;
    before.current = { table, visible, n: table.n };
    if (old?.table !== table) box.scrollTop = remembered("rows") ?? 0;
    else if (old.visible !== visible) keepPlace(view, box, old);
    view.top.value = box.scrollTop;
  }, [table, visible]);
  useEffect(() => {
    const box = /** @type {HTMLElement} */ (scroller.current);
    view.scroller = box;
    const measure = () => {
      view.height.value = box.clientHeight;
      view.width.value = box.querySelector(".wf-lines > div")?.clientWidth ?? 600;
    };
    const watch = new ResizeObserver(measure);
    watch.observe(box);
    let frame = 0;
    const scrolled = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        view.top.value = box.scrollTop;
        remember({ rows: box.scrollTop });
        if (box.scrollTop + box.clientHeight >= view.visible.value.length * ROW - ROW) view.arrived.value = 0;
      });
    };
    box.addEventListener("scroll", scrolled, { passive: true });
    return () => {
      watch.disconnect();
      cancelAnimationFrame(frame);
      box.removeEventListener("scroll", scrolled);
    };
  }, []);
  const selected = view.selected.value;
  const first = useRef(true);
  useEffect(() => {
    // What Back, a link or a reload selects is shown; but a place that was left scrolled is kept.
    const kept = first.current && remembered("rows") !== undefined && visible.includes(selected);
    first.current = false;
    if (selected >= 0 && !kept) view.reveal(selected);
  }, [selected]);
  return scroller;
}

/**
 * @param {View} view
 * @param {HTMLElement} box
 * @param {{ visible: Int32Array, n: number }} old
 */
function keepPlace(view, box, old) {
  const [visible, top, height] = [view.visible.value, view.top.value, view.height.value];
  const grown = view.table.n - old.n;
  if (grown > 0 && top > 0 && top + height >= old.visible.length * ROW - ROW) {
    box.scrollTop = visible.length * ROW;
    return;
  }
  const position = Math.floor(top / ROW);
  const moved = visible.indexOf(old.visible[position] ?? -1);
  if (moved >= 0 && moved !== position) box.scrollTop = top + (moved - position) * ROW;
  if (grown > 0 && visible.length * ROW > height) view.arrived.value += grown;
}
