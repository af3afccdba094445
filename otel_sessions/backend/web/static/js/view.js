/**
 * What the waterfall shows just now, derived from signals, and what keys and buttons do to it.
 *
 * @import { OpenedView, SessionDetail } from "./types.d.ts"
 * @import { Table } from "./rows.js"
 * @import { ReadonlySignal } from "../vendor/preact-11.2.0.js"
 */
import { computed, signal } from "../vendor/preact-11.2.0.js";
import { isGrowing, nsBetween } from "./format.js";
import { adjust } from "./nav.js";
import { everyFold, isFolded, openRepeats, turned } from "./folds.js";
import { find, mounted, nextRow, parents, revealed, scrollTo, shownFor, visibleRows } from "./rows.js";
import { endOf, extent, idleGaps, Scale } from "./scale.js";
import { now, query } from "./state.js";

export const ROW = 26; // px, as --row in the stylesheet
const AROUND = 8; // rows mounted beyond the edge
const IDLE_SHARE = 0.15; // of the whole, for a gap worth compressing
const TICK_WIDTH = 84; // px: a label and some air
const NARROWEST = 1000; // ns, a window of time

/** The waterfall of one opened session; it lives as long as its tab is shown. */
export class View {
  /** @param {OpenedView} opened */
  constructor(opened) {
    this.opened = opened;
    /** @type {HTMLElement | null} */
    this.scroller = null;
    this.top = signal(0);
    this.height = signal(600);
    this.width = signal(600);
    this.squeezed = signal(false);
    /** Spans that came in below while nobody looked there. */
    this.arrived = signal(0);
  }

  /** The table, read so that its changes in place are seen. */
  get table() {
    this.opened.version.value;
    return /** @type {Table} */ (this.opened.table.value);
  }

  get session() {
    return /** @type {SessionDetail} */ (this.opened.detail.value);
  }

  /** What of the repeats is open, as the address has it. */
  unfold = computed(() => (query.value.get("unfold") ?? "").split(",").filter(Boolean));

  unfolded = computed(() => openRepeats(this.table, this.unfold.value));

  visible = computed(() => visibleRows(this.table, this.opened.collapsed.value, this.unfolded.value));

  /** Until when an open span is known to have been open, as an offset. */
  until = computed(() => {
    const { session: s, table } = this;
    if (isGrowing(s)) return now.value * 1e6 - Number(table.base);
    return nsBetween(table.base, s.state === "ended" ? s.ended_at ?? s.last_alive_at : s.last_alive_at);
  });

  /** What an open span is called, by what is known of its session. */
  openWord = computed(() => {
    if (isGrowing(this.session)) return "open";
    return this.session.state === "ended" ? "never ended" : this.session.state;
  });

  /** All of its time. @type {ReadonlySignal<[number, number]>} */
  whole = computed(() => {
    const [from, to] = extent(this.table, this.until.value);
    return [from, isGrowing(this.session) ? Math.max(to, this.until.value) : to];
  });

  gaps = computed(() => idleGaps(this.table, this.until.value, this.whole.value, IDLE_SHARE));

  /** How much of the whole is idle, 0..1. */
  idle = computed(() => {
    const [from, to] = this.whole.value;
    return this.gaps.value.reduce((sum, [a, b]) => sum + b - a, 0) / (to - from);
  });

  /** The part of time that is shown; all of it where the address does not say. @type {ReadonlySignal<[number, number]>} */
  window = computed(() => {
    const [first, last] = this.whole.value;
    const from = Math.max(first, this.#offset(query.value.get("from"), first));
    const to = Math.min(last, this.#offset(query.value.get("to"), last));
    return to > from ? [from, to] : [first, last];
  });

  scale = computed(() => new Scale(...this.window.value, this.squeezed.value ? this.gaps.value : []));

  /** The scale of the map, which always shows all. */
  map = computed(() => new Scale(...this.whole.value));

  ticks = computed(() => Math.max(2, Math.floor(this.width.value / TICK_WIDTH)));

  finding = computed(() => query.value.get("find") ?? "");

  hits = computed(() => find(this.table, this.finding.value));

  /** Rows that show a hit: it is theirs, or that of one of the repeats that they stand for. */
  lit = computed(() => {
    const { table } = this;
    const rows = new Set(this.hits.value);
    for (const row of this.hits.value) if (table.head[row] >= 0) rows.add(table.head[row]);
    return rows;
  });

  errors = computed(() => this.table.order.filter((row) => this.table.failed(row)).length);

  /** The selected row, or −1. */
  selected = computed(() => {
    const id = query.value.get("span");
    return id ? this.table.rowOf(id) : -1;
  });

  /** Whether the selected span is shown in full beside the rows. */
  detail = computed(() => this.selected.value >= 0 && query.value.get("detail") === "1");

  /** Positions and rows to mount: those in view, some around, and always the selected one. @type {ReadonlySignal<[number, number][]>} */
  mounted = computed(() => {
    const visible = this.visible.value;
    const [from, to] = mounted(this.top.value, this.height.value, ROW, visible.length, AROUND);
    /** @type {[number, number][]} */
    const rows = [];
    for (let i = from; i < to; i++) rows.push([i, visible[i]]);
    const active = this.selected.value < 0 ? -1 : visible.indexOf(this.selected.value);
    if (active >= 0 && (active < from || active >= to)) rows.push([active, this.selected.value]);
    return rows;
  });

  /** Undefined for a row that has nothing to open. @param {number} row */
  expanded(row) {
    if (this.table.repeats[row]) return this.unfolded.value.has(row);
    return this.table.children[row] ? !this.opened.collapsed.value.has(row) : undefined;
  }

  /** @param {string | null} ns @param {number} otherwise */
  #offset(ns, otherwise) {
    return ns && /^\d{1,20}$/.test(ns) ? nsBetween(this.table.base, ns) : otherwise;
  }

  // --- What can be done -------------------------------------------------------------------------

  /** Bring a row into view, opening what hides it. @param {number} row */
  reveal(row) {
    const { collapsed } = this.opened;
    const open = revealed(this.table, collapsed.value, row);
    if (open.size !== collapsed.value.size) collapsed.value = open;
    if (isFolded(this.table, this.unfolded.value, row)) this.#turn(row);
    const at = this.visible.value.indexOf(row);
    const box = this.scroller;
    if (!box || at < 0) return;
    // The space may have to grow before it can be scrolled to.
    const to = scrollTo(at, box.scrollTop, box.clientHeight, ROW);
    requestAnimationFrame(() => (box.scrollTop = to));
  }

  /** @param {number} row */
  select(row) {
    if (row < 0) return;
    adjust({ span: this.table.id[row] });
    this.reveal(row);
  }

  /** Select a row and show it in full. @param {number} row */
  open(row) {
    adjust({ span: this.table.id[row], detail: "1" }, { push: !this.detail.value });
  }

  /** Close the detail; where none is open, select nothing. */
  back() {
    adjust(this.detail.value ? { detail: null } : { span: null });
  }

  /** Open or close what is below a row, or the repeats it stands for. @param {number} row */
  toggle(row) {
    if (this.table.repeats[row]) return this.#turn(row);
    const next = new Set(this.opened.collapsed.value);
    if (!next.delete(row)) next.add(row);
    this.opened.collapsed.value = next;
  }

  /** Open or close the repeats that a row belongs to. @param {number} row */
  #turn(row) {
    adjust({ unfold: turned(this.table, this.unfold.value, row).join() });
  }

  collapseAll() {
    this.opened.collapsed.value = parents(this.table, 1);
    adjust({ unfold: null });
  }

  expandAll() {
    this.opened.collapsed.value = new Set();
    adjust({ unfold: everyFold.join() });
  }

  /** Collapse the selected row, or go up from it. */
  inward() {
    const row = this.selected.value;
    if (row < 0) return;
    const first = this.table.head[row];
    if (this.expanded(row)) this.toggle(row);
    else this.select(first >= 0 && first !== row ? first : this.table.parent[row]);
  }

  /** Expand the selected row, or go into it. */
  outward() {
    const row = this.selected.value;
    if (row < 0 || this.expanded(row) === undefined) return;
    if (this.expanded(row)) this.step(1);
    else this.toggle(row);
  }

  /** Move the selection among the visible rows. @param {number} by */
  step(by) {
    const visible = this.visible.value;
    const row = this.selected.value;
    const at = row < 0 ? -1 : visible.indexOf(shownFor(this.table, visible, row));
    const next = at < 0 ? (by > 0 ? 0 : visible.length - 1) : at + by;
    this.select(visible[Math.max(0, Math.min(visible.length - 1, next))] ?? -1);
  }

  /** How many rows make a page. */
  get page() {
    return Math.max(1, Math.floor(this.height.value / ROW) - 1);
  }

  /** @param {1 | -1} direction */
  nextHit(direction) {
    this.select(nextRow(this.table.order, this.selected.value, direction, (row) => this.hits.value.has(row)));
  }

  nextError() {
    this.select(nextRow(this.table.order, this.selected.value, 1, (row) => this.table.failed(row)));
  }

  /** Show all of time. */
  fit() {
    adjust({ from: null, to: null });
  }

  /** Show a part of time. @param {number} from @param {number} to */
  choose(from, to) {
    const [first, last] = this.whole.value;
    const [a, b] = [Math.max(from, first), Math.min(to, last)];
    if (a <= first && b >= last) return this.fit();
    const absolute = (/** @type {number} */ offset) =>
      String(BigInt(this.table.base) + BigInt(Math.round(offset)));
    adjust({ from: absolute(a), to: absolute(b) });
  }

  /** Show less or more of time around the selected span. @param {number} factor */
  zoom(factor) {
    const [from, to] = this.window.value;
    const row = this.selected.value;
    const at = row < 0
      ? (from + to) / 2
      : (this.table.start[row] + endOf(this.table, row, this.until.value)) / 2;
    const half = Math.max(NARROWEST, (to - from) * factor) / 2;
    const middle = Math.min(Math.max(at, from), to);
    this.choose(middle - half, middle + half);
  }

  /** Scroll to the end, where new spans come in. */
  toEnd() {
    this.arrived.value = 0;
    if (this.scroller) this.scroller.scrollTop = this.visible.value.length * ROW;
  }
}
