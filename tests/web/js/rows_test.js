/** What the columns of a session promise. */
import assert from "node:assert/strict";
import {
  arrange,
  find,
  Flag,
  merge,
  mounted,
  nextRow,
  parents,
  revealed,
  scrollTo,
  shownFor,
  Table,
  tableOf,
  visibleRows,
} from "../../../otel_sessions/backend/web/static/js/rows.js";

/** @type {ReadonlySet<number>} */
const NONE = new Set();
const TRACE = "0af7651916cd43dd8448eb211c80319c";

/**
 * @typedef {{ id: string, parent?: string, start?: number, duration?: number | null, name?: string,
 *   trace?: string, flags?: number, status?: number }} Span
 */

/** @param {Span[]} spans @param {{ revision?: number, base?: string }} [head] */
function delta(spans, { revision = 1, base = "1000" } = {}) {
  const traces = [...new Set(spans.map((s) => s.trace ?? TRACE))];
  const names = [...new Set(spans.map((s) => s.name ?? "step"))];
  const all = (/** @type {number} */ value) => spans.map(() => value);
  return {
    session: "s",
    base,
    revision,
    traces,
    names,
    categories: ["step"],
    services: ["planner"],
    tasks: [],
    labels: [],
    columns: {
      trace: spans.map((s) => traces.indexOf(s.trace ?? TRACE)),
      id: spans.map((s) => s.id),
      parent_id: spans.map((s) => s.parent ?? ""),
      name: spans.map((s) => names.indexOf(s.name ?? "step")),
      category: all(0),
      service: all(0),
      start: spans.map((s) => s.start ?? 0),
      duration: spans.map((s) => (s.duration === undefined ? 1 : s.duration)),
      status: spans.map((s) => s.status ?? 0),
      flags: spans.map((s) => s.flags ?? 0),
      task: all(-1),
      input_tokens: spans.map(() => null),
      output_tokens: spans.map(() => null),
      label: all(-1),
      kind: all(1),
    },
  };
}

/** @param {Span[]} spans */
function grown(spans) {
  const table = new Table("1000");
  merge(table, delta(spans));
  return table;
}

/** The tree as text: two spaces a level. @param {Table} table */
const drawn = (table, rows = table.order) =>
  [...rows].map((row) =>
    "  ".repeat(table.depth[row]) + (table.is(row, Flag.PLACEHOLDER) ? "?" : "") + table.id[row]
  );

const FAMILY = [
  { id: "a" },
  { id: "b", parent: "a", start: 1 },
  { id: "c", parent: "b", start: 2 },
  { id: "d", parent: "a", start: 5 },
];

Deno.test("children stand under their parent, earliest first", () => {
  const table = grown([FAMILY[3], FAMILY[2], FAMILY[1], FAMILY[0]]);
  assert.deepEqual(drawn(table), ["a", "  b", "    c", "  d"]);
});

Deno.test("a whole answer and the same spans as deltas draw the same tree", () => {
  const { columns, ...head } = delta(FAMILY);
  const { parent_id: _, ...rest } = columns;
  const whole = tableOf({
    ...head,
    event_id: "1",
    total: 4,
    columns: { ...rest, parent: [-1, 0, 1, 0], depth: [0, 1, 2, 1] },
  });
  assert.deepEqual(drawn(whole), drawn(grown(FAMILY)));
  assert.deepEqual([...whole.place.subarray(0, 4)], [...grown(FAMILY).place.subarray(0, 4)]);
});

Deno.test("any order of deltas gives the same tree", () => {
  const spans = [...FAMILY, { id: "e", parent: "x", start: 3 }, { id: "f", start: 4 }];
  const expected = drawn(grown(spans));
  for (let seed = 1; seed < 40; seed++) {
    const mixed = [...spans].sort((a, b) =>
      ((a.id.charCodeAt(0) * seed) % 7) - ((b.id.charCodeAt(0) * seed) % 7)
    );
    const table = new Table("1000");
    for (const span of mixed) merge(table, delta([span]));
    assert.deepEqual(drawn(table), expected);
  }
});

Deno.test("a missing parent is a row of its own, at the start of its earliest child", () => {
  const table = grown([{ id: "k1", parent: "gone", start: 9 }, { id: "k2", parent: "gone", start: 4 }]);
  assert.deepEqual(drawn(table), ["?gone", "  k2", "  k1"]);
  assert.equal(table.start[table.rowOf("gone")], 4);
});

Deno.test("a parent that arrives takes its placeholder's row", () => {
  const table = grown([{ id: "kid", parent: "late", start: 4 }]);
  const row = table.rowOf("late");
  assert.equal(merge(table, delta([{ id: "late", parent: "root", start: 1 }, { id: "root" }])), true);
  assert.equal(table.rowOf("late"), row);
  assert.deepEqual(drawn(table), ["root", "  late", "    kid"]);
});

Deno.test("a placeholder that nobody names any more is not drawn", () => {
  const table = grown([{ id: "kid", parent: "wrong", start: 4 }, { id: "root" }]);
  merge(table, delta([{ id: "kid", parent: "root", start: 4 }]));
  assert.deepEqual(drawn(table), ["root", "  kid"]);
});

Deno.test("a circle of parents hides no span and draws none twice", () => {
  const table = grown([{ id: "a", parent: "c" }, { id: "b", parent: "a", start: 1 }, {
    id: "c",
    parent: "b",
    start: 2,
  }, { id: "d", parent: "d", start: 9 }]);
  assert.deepEqual(drawn(table), ["a", "  b", "    c", "d"]);
});

Deno.test("the same span id in two traces is two rows", () => {
  const table = grown([{ id: "a" }, { id: "a", trace: "f".repeat(32), start: 1 }, {
    id: "b",
    parent: "a",
    start: 2,
    trace: "f".repeat(32),
  }]);
  assert.deepEqual(drawn(table), ["a", "a", "  b"]);
});

Deno.test("a chain of fifty thousand spans overflows no stack", () => {
  const spans = Array.from(
    { length: 50_000 },
    (_, i) => ({ id: `s${i}`, parent: i ? `s${i - 1}` : "", start: i }),
  );
  const table = grown(spans);
  assert.equal(table.order.length, 50_000);
  assert.equal(table.depth[table.order[49_999]], 49_999);
});

Deno.test("an end that arrives changes the row, not the tree", () => {
  const table = grown([{ id: "a", duration: null, flags: Flag.OPEN }]);
  assert.equal(merge(table, delta([{ id: "a", duration: 7 }], { revision: 2 })), false);
  assert.equal(table.duration[0], 7);
  assert.equal(table.is(0, Flag.OPEN), false);
  assert.equal(table.revision, 2);
});

Deno.test("offsets of a delta count from its own base", () => {
  const table = grown([{ id: "a", start: 0 }]);
  merge(table, delta([{ id: "b", parent: "a", start: 5 }], { base: "1763730000000000100" }));
  assert.equal(table.start[1], 1763730000000000100 - 1000 + 5);
});

Deno.test("a collapsed row hides all below it and nothing else", () => {
  const table = grown(FAMILY);
  const b = table.rowOf("b");
  assert.deepEqual(drawn(table, visibleRows(table, new Set([b]), NONE)), ["a", "  b", "  d"]);
  assert.deepEqual(drawn(table, visibleRows(table, new Set([table.rowOf("a"), b]), NONE)), ["a"]);
  assert.deepEqual(drawn(table, visibleRows(table, parents(table, 1), NONE)), ["a", "  b", "  d"]);
});

Deno.test("revealing a row opens its ancestors and no other", () => {
  const table = grown([...FAMILY, { id: "e", parent: "d", start: 6 }]);
  const [a, b, c, d] = ["a", "b", "c", "d"].map((id) => table.rowOf(id));
  assert.deepEqual([...revealed(table, new Set([a, b, d]), c)], [d]);
  assert.equal(shownFor(table, visibleRows(table, new Set([a]), NONE), c), a);
});

Deno.test("every row knows its place among its siblings", () => {
  const table = grown(FAMILY);
  const of = (/** @type {string} */ id) => [table.place[table.rowOf(id)], table.siblings[table.rowOf(id)]];
  assert.deepEqual(["a", "b", "c", "d"].map(of), [[1, 1], [1, 2], [1, 1], [2, 2]]);
});

Deno.test("what is mounted covers what is in view, whatever the scroll", () => {
  for (const top of [0, 1, 25, 26, 5000, 260_000 - 600]) {
    const [from, to] = mounted(top, 600, 26, 10_000, 8);
    assert.ok(from * 26 <= top && to * 26 >= Math.min(top + 600, 260_000), `${top}: ${from}-${to}`);
    assert.ok(to - from <= 600 / 26 + 2 + 16);
  }
  assert.deepEqual(mounted(9000, 600, 26, 3, 8), [3, 3]);
  assert.deepEqual(mounted(0, 600, 26, 0, 8), [0, 0]);
});

Deno.test("scrolling brings a row into view by the shortest way", () => {
  assert.equal(scrollTo(5, 0, 600, 26), 0);
  assert.equal(scrollTo(0, 500, 600, 26), 0);
  assert.equal(scrollTo(100, 0, 600, 26), 101 * 26 - 600);
});

Deno.test("next and previous go round", () => {
  const table = grown(FAMILY);
  const bad = (/** @type {number} */ row) => table.id[row] === "b" || table.id[row] === "d";
  const walk = [1, 1, 1].reduce(
    (rows) => [...rows, nextRow(table.order, rows.at(-1) ?? -1, 1, bad)],
    /** @type {number[]} */ ([]),
  );
  assert.deepEqual(walk.map((row) => table.id[row]), ["b", "d", "b"]);
  assert.equal(table.id[nextRow(table.order, table.rowOf("b"), -1, bad)], "d");
  assert.equal(nextRow(table.order, -1, 1, () => false), -1);
});

Deno.test("repeats of a small step are one row until they are opened", () => {
  const repeats = Array.from(
    { length: 7 },
    (_, i) => ({ id: `r${i}`, parent: "a", start: 10 + i, name: "stat", duration: 2 }),
  );
  const table = grown([{ id: "a", name: "root" }, { id: "b", parent: "a", name: "read" }, ...repeats]);
  const first = table.rowOf("r0");
  assert.deepEqual(drawn(table, visibleRows(table, NONE, NONE)), ["a", "  b", "  r0"]);
  assert.deepEqual([table.repeats[first], table.together[first], table.reach[first]], [7, 14, 18]);
  assert.equal(visibleRows(table, NONE, new Set([first])).length, 9);
  assert.equal(shownFor(table, visibleRows(table, NONE, NONE), table.rowOf("r5")), first);
});

Deno.test("what failed, is open, has children or a name of its own is never folded away", () => {
  const odd = [{ status: 2 }, { flags: Flag.OPEN, duration: null }, { name: "other" }, { id: "up" }];
  const spans = Array.from({ length: 4 * 5 }, (_, i) => ({
    id: `r${String(i).padStart(2, "0")}`,
    parent: "a",
    start: i,
    name: "stat",
    ...(i % 5 === 4 ? odd[(i - 4) / 5] : {}),
  }));
  const table = grown([{ id: "a" }, ...spans, { id: "kid", parent: "up", start: 30 }]);
  assert.equal(visibleRows(table, NONE, NONE).length, table.order.length); // four in a row are too few to fold
  merge(table, delta([{ id: "r045", parent: "a", start: 4.5, name: "stat" }]));
  assert.deepEqual(drawn(table, visibleRows(table, NONE, NONE)).slice(0, 7), [
    "a",
    "  r00",
    "  r01",
    "  r02",
    "  r03",
    "  r04",
    "  r045",
  ]);
  assert.equal(visibleRows(table, NONE, NONE).length, table.order.length - 4);
});

Deno.test("a repeat that turns out to have failed gets its own row", () => {
  const repeats = Array.from({ length: 6 }, (_, i) => ({ id: `r${i}`, start: i, name: "stat" }));
  const table = grown(repeats);
  assert.equal(visibleRows(table, NONE, NONE).length, 1);
  merge(table, delta([{ id: "r5", start: 5, name: "stat", status: 2 }]));
  assert.deepEqual(drawn(table, visibleRows(table, NONE, NONE)), ["r0", "r5"]);
});

Deno.test("find looks into names in any script, and takes a whole id", () => {
  const table = grown([{ id: "a", name: "锂电池供应链" }, { id: "b", name: "Straße" }, {
    id: "c",
    name: "chat",
  }]);
  const ids = (/** @type {string} */ text) => [...find(table, text)].map((row) => table.id[row]);
  assert.deepEqual(ids("电池"), ["a"]);
  assert.deepEqual(ids("CHAT"), ["c"]);
  assert.deepEqual(ids("b"), ["b"]);
  assert.deepEqual(ids("  "), []);
});

Deno.test("arranging twice changes nothing", () => {
  const table = grown([...FAMILY, { id: "k", parent: "gone" }]);
  const before = drawn(table);
  arrange(table);
  assert.deepEqual(drawn(table), before);
});
