/**
 * Repeats: neighbours in the tree that are the same small thing again and again. They are drawn as one row
 * that says how many they are and how long they took together, until somebody opens it. Pure.
 *
 * What is open is kept in the address, as the ids of spans. An id stands for its kind: all repeats of that
 * name below that parent, however many there are by now and whichever came first. So news neither closes
 * what a reader opened nor opens anything else.
 *
 * @import { Table } from "./rows.js"
 */
import { Flag } from "./flags.js";

const LEAST_REPEATS = 5;
const ALL = "all";

/** What makes a span more than one of many: it is not over, not here, went wrong, or says something. */
const TELLING = Flag.OPEN | Flag.PLACEHOLDER | Flag.EXCEPTION | Flag.CONTENT | Flag.SYNTHETIC;

/** Find the repeats of a table, and note them in its columns. @param {Table} table */
export function fold(table) {
  const { order, head, repeats } = table;
  head.fill(-1, 0, table.n);
  repeats.fill(0, 0, table.n);
  for (let from = 0; from < order.length;) {
    const to = endOfRun(table, from);
    if (to - from >= LEAST_REPEATS) gather(table, from, to);
    from = to;
  }
}

/** The place after the last of the rows that are like the one at `from`. @param {Table} table @param {number} from */
function endOfRun(table, from) {
  const { order } = table;
  let to = from + 1;
  if (!isSmall(table, order[from])) return to;
  while (to < order.length && isSmall(table, order[to]) && isLike(table, order[from], order[to])) to++;
  return to;
}

/** @param {Table} table @param {number} row */
function isSmall(table, row) {
  return table.children[row] === 0 && !table.failed(row) && !table.is(row, TELLING);
}

/** @param {Table} table @param {number} a @param {number} b */
function isLike(table, a, b) {
  return table.parent[a] === table.parent[b] && table.name[a] === table.name[b] &&
    table.category[a] === table.category[b] && table.label[a] === table.label[b] &&
    table.service[a] === table.service[b] && table.flags[a] === table.flags[b] &&
    table.trace[a] === table.trace[b];
}

/** Note rows at places `from` to `to` as repeats of the first. @param {Table} table @param {number} from @param {number} to */
function gather(table, from, to) {
  const { order, head, start, duration } = table;
  const first = order[from];
  table.repeats[first] = to - from;
  table.together[first] = 0;
  table.reach[first] = -Infinity;
  table.used[first] = NaN;
  for (let i = from; i < to; i++) {
    const row = order[i];
    head[row] = first;
    table.together[first] += duration[row];
    table.reach[first] = Math.max(table.reach[first], start[row] + duration[row]);
    const used = table.tokensOf(row);
    if (!Number.isNaN(used)) table.used[first] = (table.used[first] || 0) + used;
  }
}

/** Whether a row lies inside repeats that are not open. @param {Table} table @param {ReadonlySet<number>} open @param {number} row */
export function isFolded(table, open, row) {
  const first = table.head[row];
  return first >= 0 && first !== row && !open.has(first);
}

/** What an id in the address stands for. @param {Table} table @param {number} row */
function kindOf(table, row) {
  return `${table.parent[row]} ${table.trace[row]} ${table.name[row]} ${table.category[row]} ${
    table.label[row]
  }`;
}

/** @param {Table} table @param {string} id */
function kindOfId(table, id) {
  const row = table.rowOf(id);
  return row < 0 ? "" : kindOf(table, row);
}

/**
 * First rows of the repeats that are open. With "all" among them the ids are those that are not.
 *
 * @param {Table} table
 * @param {string[]} ids as the address has them
 * @returns {Set<number>}
 */
export function openRepeats(table, ids) {
  const rows = new Set();
  if (ids.length === 0) return rows;
  const all = ids.includes(ALL);
  const named = new Set(ids.filter((id) => id !== ALL).map((id) => kindOfId(table, id)));
  for (const row of table.order) {
    if (table.repeats[row] > 0 && named.has(kindOf(table, row)) !== all) rows.add(row);
  }
  return rows;
}

/** The ids for the address once the repeats of `row` are turned over: opened, or closed again. @param {Table} table @param {string[]} ids @param {number} row */
export function turned(table, ids, row) {
  const kind = kindOf(table, row);
  const others = ids.filter((id) => id === ALL || kindOfId(table, id) !== kind);
  return others.length < ids.length ? others : [...others, table.id[row]];
}

/** The ids that open every fold. */
export const everyFold = [ALL];
