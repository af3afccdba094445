/**
 * The spans of one session as columns: what came, the tree they form, and which rows are visible. Pure.
 *
 * A `Table` is filled once from the whole answer, then changed in place by deltas; `arrange` derives the
 * tree from parent ids alone, so a table grown by deltas and one read afresh show the same rows in the
 * same order. Times are ns offsets from `table.base`: a double holds those exactly for 104 days.
 *
 * @import { Columns, RowsAnswer, RowsDelta } from "./types.d.ts"
 */

import { ERROR, Flag } from "./flags.js";
import { fold, isFolded } from "./folds.js";

/** Strings that repeat, each kept once. */
class Words {
  constructor() {
    /** @type {string[]} */
    this.list = [];
    /** @type {Map<string, number>} */
    this.index = new Map();
  }

  /** @param {string} word */
  add(word) {
    let at = this.index.get(word);
    if (at === undefined) {
      at = this.list.push(word) - 1;
      this.index.set(word, at);
    }
    return at;
  }
}

const NUMBERS = /** @type {const} */ (["start", "duration", "input", "output", "together", "reach", "used"]); // NaN: open, unknown
const INDICES = /** @type {const} */ ([
  "trace",
  "parent",
  "depth",
  "name",
  "category",
  "service",
  "task",
  "label",
  "kind",
  "status",
  "flags",
  "children",
  "place",
  "siblings",
  "head",
  "repeats",
]);

/** The columns of a session's spans, and the order in which they are drawn. */
export class Table {
  /** @param {string} base */
  constructor(base) {
    this.base = base;
    this.revision = 0;
    this.n = 0;
    this.words = {
      traces: new Words(),
      names: new Words(),
      categories: new Words(),
      services: new Words(),
      tasks: new Words(),
      labels: new Words(),
    };
    /** @type {string[]} */
    this.id = [];
    /** @type {string[]} */
    this.parentId = [];
    /** Row by span id, for each trace. @type {Map<string, number>[]} */
    this.at = [];
    /** All rows, earliest first; kept, since sorting what is almost sorted costs little. @type {number[]} */
    this.byStart = [];
    /** Rows in tree order. @type {Int32Array} */
    this.order = new Int32Array(0);
  }

  start = new Float64Array(0);
  duration = new Float64Array(0);
  input = new Float64Array(0);
  output = new Float64Array(0);
  trace = new Int32Array(0);
  /** Row of the parent, −1 at the top. */ parent = new Int32Array(0);
  depth = new Int32Array(0);
  name = new Int32Array(0);
  category = new Int32Array(0);
  service = new Int32Array(0);
  task = new Int32Array(0);
  label = new Int32Array(0);
  kind = new Int32Array(0);
  status = new Int32Array(0);
  flags = new Int32Array(0);
  /** How many rows have this one as their parent. */ children = new Int32Array(0);
  /** Place among its siblings, from 1. */ place = new Int32Array(0);
  siblings = new Int32Array(0);
  /** First row of the repeats it belongs to, −1 for none. */
  head = new Int32Array(0);
  /** Of such a first row: how many there are, how long they took together, and when the last one ended. */
  repeats = new Int32Array(0);
  together = new Float64Array(0);
  reach = new Float64Array(0);
  /** And the tokens that they used, NaN where none of them tells. */ used = new Float64Array(0);

  /** @param {number} row */
  nameOf(row) {
    return this.words.names.list[this.name[row]];
  }
  /** @param {number} row */
  categoryOf(row) {
    return this.words.categories.list[this.category[row]];
  }
  /** @param {number} row */
  labelOf(row) {
    return this.label[row] < 0 ? "" : this.words.labels.list[this.label[row]];
  }
  /** @param {number} row */
  serviceOf(row) {
    return this.service[row] < 0 ? "" : this.words.services.list[this.service[row]];
  }
  /** @param {number} row */
  traceOf(row) {
    return this.words.traces.list[this.trace[row]];
  }
  /** @param {number} row @param {number} flag */
  is(row, flag) {
    return (this.flags[row] & flag) !== 0;
  }
  /** @param {number} row */
  failed(row) {
    return this.status[row] === ERROR;
  }

  /** Tokens in and out; NaN where it tells neither. @param {number} row */
  tokensOf(row) {
    const [input, output] = [this.input[row], this.output[row]];
    return Number.isNaN(input) && Number.isNaN(output) ? NaN : (input || 0) + (output || 0);
  }

  /** The row of a span id, whichever trace it is in; −1 where there is none. @param {string} id */
  rowOf(id) {
    return this.id.indexOf(id);
  }

  /** Make room for `more` rows; doubling keeps a growing session linear. @param {number} more */
  reserve(more) {
    if (this.n + more <= this.start.length) return;
    const size = Math.max(this.n + more, this.start.length * 2, 64);
    for (const c of NUMBERS) this[c] = grown(this[c], new Float64Array(size));
    for (const c of INDICES) this[c] = grown(this[c], new Int32Array(size));
  }
}

/**
 * @template {Float64Array | Int32Array} T
 * @param {T} from
 * @param {T} into
 */
function grown(from, into) {
  into.set(from);
  return into;
}

/** Build the table of a whole answer. @param {RowsAnswer} answer */
export function tableOf(answer) {
  const table = new Table(answer.base);
  const { parent, id, trace } = answer.columns;
  // A parent of another trace is no parent id: `adopt` finds it again.
  put(table, answer, answer.columns, (i) => trace[parent[i]] === trace[i] ? id[parent[i]] : "");
  table.revision = answer.revision;
  arrange(table);
  fold(table);
  return table;
}

/**
 * Apply a delta; return whether the tree changed (and was arranged anew), or only values in rows.
 *
 * @param {Table} table
 * @param {RowsDelta} delta
 */
export function merge(table, delta) {
  const changed = put(table, delta, delta.columns, (i) => delta.columns.parent_id[i]);
  table.revision = Math.max(table.revision, delta.revision);
  if (changed) arrange(table);
  fold(table);
  return changed;
}

/**
 * @param {Table} table
 * @param {RowsAnswer | RowsDelta} head
 * @param {Columns} columns
 * @param {(i: number) => string} parentId
 */
function put(table, head, columns, parentId) {
  const words = table.words;
  const traces = head.traces.map((w) => words.traces.add(w));
  const names = head.names.map((w) => words.names.add(w));
  const categories = head.categories.map((w) => words.categories.add(w));
  const services = head.services.map((w) => words.services.add(w));
  const tasks = head.tasks.map((w) => words.tasks.add(w));
  const labels = head.labels.map((w) => words.labels.add(w));
  const shift = Number(BigInt(head.base) - BigInt(table.base));
  let changed = false;
  table.reserve(columns.id.length);
  for (let i = 0; i < columns.id.length; i++) {
    const trace = traces[columns.trace[i]];
    const fresh = table.n;
    const row = rowFor(table, trace, columns.id[i]);
    const start = columns.start[i] + shift;
    const parent = parentId(i);
    changed ||= row === fresh || table.parentId[row] !== parent || table.start[row] !== start ||
      table.is(row, Flag.PLACEHOLDER);
    table.parentId[row] = parent;
    table.start[row] = start;
    table.duration[row] = columns.duration[i] ?? NaN;
    table.name[row] = names[columns.name[i]];
    table.category[row] = categories[columns.category[i]];
    table.service[row] = services[columns.service[i]] ?? -1;
    table.task[row] = tasks[columns.task[i]] ?? -1;
    table.label[row] = labels[columns.label[i]] ?? -1;
    table.kind[row] = columns.kind[i];
    table.status[row] = columns.status[i];
    table.flags[row] = columns.flags[i];
    table.input[row] = columns.input_tokens[i] ?? NaN;
    table.output[row] = columns.output_tokens[i] ?? NaN;
  }
  return changed;
}

/** The row of a span, made if need be. @param {Table} table @param {number} trace @param {string} id */
function rowFor(table, trace, id) {
  const ids = table.at[trace] ??= new Map();
  let row = ids.get(id);
  if (row === undefined) {
    row = table.n++;
    ids.set(id, row);
    table.id[row] = id;
    table.trace[row] = trace;
  }
  return row;
}

/** Derive parents, order, depth and places among siblings from the parent ids. @param {Table} table */
export function arrange(table) {
  addPlaceholders(table);
  const { n, parent, start, id } = table;
  for (let row = 0; row < n; row++) {
    const of = table.parentId[row];
    const at = of ? /** @type {number} */ (table.at[table.trace[row]].get(of)) : -1;
    parent[row] = at === row ? -1 : at;
  }
  const byStart = table.byStart;
  for (let row = byStart.length; row < n; row++) byStart.push(row);
  byStart.sort((a, b) => start[a] - start[b] || (id[a] < id[b] ? -1 : id[a] > id[b] ? 1 : a - b));
  adopt(table, byStart);
  let order = walked(table, byStart);
  if (breakCircles(table, byStart, order)) order = walked(table, byStart);
  table.order = order;
  place(table);
}

/**
 * A task that is a trace of its own stands below the run that began last before it, else below the first.
 *
 * @param {Table} table
 * @param {number[]} byStart
 */
function adopt(table, byStart) {
  const session = table.words.categories.index.get("session");
  const task = table.words.categories.index.get("task");
  if (session === undefined || task === undefined) return;
  let run = byStart.find((row) => table.category[row] === session) ?? -1;
  for (const row of byStart) {
    if (table.category[row] === session) run = row;
    else if (table.category[row] === task && !table.parentId[row]) table.parent[row] = run;
  }
}

/**
 * What no root reaches lies on a circle of parent ids: its earliest span is made a root.
 *
 * @param {Table} table
 * @param {number[]} byStart
 * @param {Int32Array} order
 */
function breakCircles(table, byStart, order) {
  const reached = new Uint8Array(table.n);
  for (const row of order) reached[row] = 1;
  /** @type {Map<number, number[]> | null} */
  let below = null; // made only where there is a circle
  for (const row of byStart) {
    if (reached[row] || hollow(table, row)) continue;
    table.parent[row] = -1;
    below ??= children(table);
    const stack = [row];
    while (stack.length) {
      const at = /** @type {number} */ (stack.pop());
      if (reached[at]) continue;
      reached[at] = 1;
      for (const child of below.get(at) ?? []) stack.push(child);
    }
  }
  return below !== null;
}

/** @param {Table} table */
function children(table) {
  /** @type {Map<number, number[]>} */
  const below = new Map();
  for (let row = 0; row < table.n; row++) {
    const of = below.get(table.parent[row]);
    if (of) of.push(row);
    else below.set(table.parent[row], [row]);
  }
  return below;
}

/** A missing parent is drawn as a row of its own, so that its children do not pose as roots. @param {Table} table */
function addPlaceholders(table) {
  table.reserve(table.n); // at most one for each row
  const nothing = table.words.names.add("");
  const step = table.words.categories.add("step");
  for (let row = 0; row < table.n; row++) if (table.is(row, Flag.PLACEHOLDER)) table.start[row] = Infinity;
  for (let row = 0, n = table.n; row < n; row++) {
    const of = table.parentId[row];
    if (!of) continue;
    const fresh = table.n;
    const at = rowFor(table, table.trace[row], of);
    if (at === fresh) {
      table.parentId[at] = "";
      table.flags[at] = Flag.PLACEHOLDER;
      table.name[at] = nothing;
      table.category[at] = step;
      table.service[at] = table.task[at] = table.label[at] = -1;
      table.start[at] = Infinity;
      table.duration[at] = table.input[at] = table.output[at] = NaN;
    }
    if (table.is(at, Flag.PLACEHOLDER)) table.start[at] = Math.min(table.start[at], table.start[row]);
  }
}

/** A placeholder that nobody names as parent any more. @param {Table} table @param {number} row */
function hollow(table, row) {
  return table.is(row, Flag.PLACEHOLDER) && table.children[row] === 0;
}

/** Chain the children of each row, earliest first. @param {Table} table @param {number[]} byStart */
function links(table, byStart) {
  const { n, parent, children } = table;
  const first = new Int32Array(n).fill(-1);
  const next = new Int32Array(n).fill(-1);
  const last = new Int32Array(n).fill(-1);
  children.fill(0, 0, n);
  /** @type {number[]} */
  const tops = [];
  for (const row of byStart) {
    const up = parent[row];
    if (up < 0) {
      tops.push(row);
      continue;
    }
    children[up]++;
    if (last[up] < 0) first[up] = row;
    else next[last[up]] = row;
    last[up] = row;
  }
  return { first, next, roots: tops.filter((row) => !hollow(table, row)) };
}

/**
 * All rows that roots reach, depth first; without recursion, for a session may be ten thousand spans deep.
 *
 * @param {Table} table
 * @param {number[]} byStart
 */
function walked(table, byStart) {
  const { first, next, roots } = links(table, byStart);
  const order = new Int32Array(table.n);
  let length = 0;
  for (const root of roots) {
    table.depth[root] = 0;
    const stack = [root];
    while (stack.length) {
      const row = /** @type {number} */ (stack.pop());
      order[length++] = row;
      const [sibling, child] = [row === root ? -1 : next[row], first[row]];
      if (sibling >= 0) {
        table.depth[sibling] = table.depth[row];
        stack.push(sibling);
      }
      if (child >= 0) {
        table.depth[child] = table.depth[row] + 1;
        stack.push(child);
      }
    }
  }
  return order.subarray(0, length);
}

/** @param {Table} table */
function place(table) {
  const counts = new Int32Array(table.n);
  let top = 0;
  for (const row of table.order) {
    const up = table.parent[row];
    table.place[row] = up < 0 ? ++top : ++counts[up];
  }
  for (const row of table.order) {
    table.siblings[row] = table.parent[row] < 0 ? top : counts[table.parent[row]];
  }
}

/**
 * The rows that are neither inside a collapsed one nor folded into the first of their repeats, in tree order.
 *
 * @param {Table} table
 * @param {ReadonlySet<number>} collapsed
 * @param {ReadonlySet<number>} unfolded
 */
export function visibleRows(table, collapsed, unfolded) {
  const rows = new Int32Array(table.order.length);
  let length = 0;
  let hiddenBelow = Infinity;
  for (const row of table.order) {
    const depth = table.depth[row];
    if (depth > hiddenBelow) continue;
    hiddenBelow = collapsed.has(row) ? depth : Infinity;
    if (!isFolded(table, unfolded, row)) rows[length++] = row;
  }
  return rows.subarray(0, length);
}

/** Every row that has children below the given depth: what "collapse all" closes. @param {Table} table @param {number} depth */
export function parents(table, depth) {
  const rows = new Set();
  for (const row of table.order) if (table.children[row] > 0 && table.depth[row] >= depth) rows.add(row);
  return /** @type {Set<number>} */ (rows);
}

/** The collapsed set without the ancestors of `row`, so that it shows. @param {Table} table @param {ReadonlySet<number>} collapsed @param {number} row */
export function revealed(table, collapsed, row) {
  const open = new Set(collapsed);
  for (let up = table.parent[row], guard = table.n; up >= 0 && guard > 0; up = table.parent[up], guard--) {
    open.delete(up);
  }
  return open;
}

/** The row itself, or the nearest ancestor that is visible. @param {Table} table @param {Int32Array} visible @param {number} row */
export function shownFor(table, visible, row) {
  const shown = new Set(visible);
  if (!shown.has(row) && shown.has(table.head[row])) return table.head[row];
  for (let guard = table.n; row >= 0 && guard > 0 && !shown.has(row); guard--) row = table.parent[row];
  return row;
}

/**
 * Which positions to mount: those in view and some around.
 *
 * @param {number} scrollTop
 * @param {number} height
 * @param {number} rowHeight
 * @param {number} n
 * @param {number} around
 * @returns {[number, number]} from and to, `to` not included
 */
export function mounted(scrollTop, height, rowHeight, n, around) {
  const from = Math.max(0, Math.floor(scrollTop / rowHeight) - around);
  const to = Math.min(n, Math.ceil((scrollTop + height) / rowHeight) + around);
  return [Math.min(from, n), Math.max(to, Math.min(from, n))];
}

/** Where to scroll so that a position is in view; the same place if it is already. @param {number} position @param {number} scrollTop @param {number} height @param {number} rowHeight */
export function scrollTo(position, scrollTop, height, rowHeight) {
  const top = position * rowHeight;
  if (top < scrollTop) return top;
  if (top + rowHeight > scrollTop + height) return top + rowHeight - height;
  return scrollTop;
}

/**
 * The next row in tree order, after `from` and around the end, that a test accepts; −1 for none.
 *
 * @param {Int32Array} order
 * @param {number} from a row, or −1
 * @param {1 | -1} direction
 * @param {(row: number) => boolean} accepts
 */
export function nextRow(order, from, direction, accepts) {
  const n = order.length;
  const at = from < 0 ? (direction > 0 ? -1 : n) : order.indexOf(from);
  for (let i = 1; i <= n; i++) {
    const row = order[(((at + direction * i) % n) + n) % n];
    if (accepts(row)) return row;
  }
  return -1;
}

/** Rows whose name, label, service, kind of work or id contains the text. @param {Table} table @param {string} text */
export function find(table, text) {
  const wanted = text.trim().toLowerCase();
  /** @type {Set<number>} */
  const rows = new Set();
  if (!wanted) return rows;
  const has = (/** @type {string[]} */ list) => list.map((word) => word.toLowerCase().includes(wanted));
  const names = has(table.words.names.list);
  const labels = has(table.words.labels.list);
  const services = has(table.words.services.list);
  const categories = has(table.words.categories.list);
  for (const row of table.order) {
    if (
      names[table.name[row]] || labels[table.label[row]] || services[table.service[row]] ||
      categories[table.category[row]] || table.id[row] === wanted
    ) rows.add(row);
  }
  return rows;
}
