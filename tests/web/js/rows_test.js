/** What the columns of a session promise. */
import assert from "node:assert/strict";
import { Flag } from "../../../otel_sessions/backend/web/static/js/flags.js";
import {
  arrange,
  find,
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
import { delta, drawn, grown } from "./tables.js";

/** @type {ReadonlySet<number>} */
const NONE = new Set();

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

Deno.test("a task that is a trace of its own stands below the run that began last before it", () => {
  const spans = [
    { id: "early", trace: "t1", category: "task", start: 1 },
    { id: "run", category: "session", start: 2 },
    { id: "step", parent: "run", start: 3 },
    { id: "task", trace: "t2", category: "task", start: 4 },
    { id: "in task", parent: "task", trace: "t2", start: 5 },
    { id: "last", parent: "run", start: 6 },
    { id: "run again", trace: "t3", category: "session", start: 7 },
    { id: "later", trace: "t4", category: "task", start: 8 },
    { id: "other", trace: "t5", start: 9 },
  ];
  const expected = [
    ...["run", "  early", "  step", "  task", "    in task", "  last"],
    ...["run again", "  later", "other"],
  ];
  assert.deepEqual(drawn(grown(spans)), expected);
  const table = new Table("1000");
  for (const span of [...spans].reverse()) merge(table, delta([span]));
  assert.deepEqual(drawn(table), expected);
});

Deno.test("a whole answer and deltas agree on a task that is a trace of its own", () => {
  const spans = [
    { id: "run", category: "session" },
    { id: "task", trace: "t2", category: "task", start: 1 },
    { id: "in task", parent: "task", trace: "t2", start: 2 },
  ];
  const { columns, ...head } = delta(spans);
  const { parent_id: _, ...rest } = columns;
  const whole = tableOf({
    ...head,
    event_id: "1",
    total: 3,
    columns: { ...rest, parent: [-1, 0, 1], depth: [0, 1, 2] },
  });
  assert.deepEqual(drawn(whole), drawn(grown(spans)));
  assert.deepEqual(drawn(whole), ["run", "  task", "    in task"]);
});

Deno.test("a task without a run is a top", () => {
  assert.deepEqual(drawn(grown([{ id: "a" }, { id: "b", category: "task", start: 1 }])), ["a", "b"]);
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
