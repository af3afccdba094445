/** What folding promises: less to read, nothing lost, nothing that matters out of sight. */
import assert from "node:assert/strict";
import { Flag } from "../../../otel_sessions/backend/web/static/js/flags.js";
import {
  everyFold,
  isFolded,
  openRepeats,
  turned,
} from "../../../otel_sessions/backend/web/static/js/folds.js";
import { merge, shownFor, visibleRows } from "../../../otel_sessions/backend/web/static/js/rows.js";
import { delta, drawn, grown } from "./tables.js";

/** @import { Table } from "../../../otel_sessions/backend/web/static/js/rows.js" */
/** @import { Span } from "./tables.js" */

/** @param {number} n @param {Partial<Span>} [more] @returns {Span[]} */
const repeats = (n, more = {}) =>
  Array.from({ length: n }, (_, i) => ({ id: `r${i}`, parent: "a", start: 10 + i, name: "stat", ...more }));

/** Others, of another name and later. @param {number} n */
const others = (n) =>
  repeats(n, { name: "q" }).map((s) => ({ ...s, id: `q${s.id}`, start: 100 + (s.start ?? 0) }));

/** Ids of what is seen with these ids in the address. @param {Table} table @param {string[]} [ids] */
const seen = (table, ids = []) =>
  drawn(table, visibleRows(table, new Set(), openRepeats(table, ids))).map((line) => line.trim());

Deno.test("repeats are one row that counts and sums them", () => {
  const table = grown([{ id: "a", name: "root" }, { id: "b", parent: "a", name: "read" }, ...repeats(7)]);
  const first = table.rowOf("r0");
  assert.deepEqual(seen(table), ["a", "b", "r0"]);
  assert.deepEqual([table.repeats[first], table.together[first], table.reach[first]], [7, 7, 17]);
  assert.ok(Number.isNaN(table.used[first]));
});

Deno.test("calls that tell their tokens are summed, whatever kind of work they are", () => {
  const calls = repeats(5, { name: "embed", category: "embedding" }).map((s, i) => ({
    ...s,
    tokens: i ? 10 : null,
  }));
  const table = grown([{ id: "a" }, ...calls]);
  assert.deepEqual(seen(table), ["a", "r0"]);
  assert.equal(table.used[table.rowOf("r0")], 40);
});

Deno.test("four of a kind are too few to fold", () => {
  assert.equal(seen(grown([{ id: "a" }, ...repeats(4)])).length, 5);
});

const ODD = /** @type {Record<string, Partial<Span>>} */ ({
  "failed": { status: 2 },
  "raised": { flags: Flag.EXCEPTION },
  "is open": { flags: Flag.OPEN, duration: null },
  "bears messages": { flags: Flag.CONTENT },
  "was late": { flags: Flag.LATE },
  "has another name": { name: "other" },
  "is other work": { category: "tool" },
});

for (const [what, odd] of Object.entries(ODD)) {
  Deno.test(`a span that ${what} is never folded among others`, () => {
    const spans = repeats(11);
    spans[5] = { ...spans[5], ...odd };
    assert.deepEqual(seen(grown([{ id: "a" }, ...spans])), ["a", "r0", "r5", "r6"]);
  });
}

Deno.test("a span with children, and a child of another, are rows of their own", () => {
  const table = grown([{ id: "a" }, ...repeats(11), { id: "kid", parent: "r5", start: 99, name: "stat" }]);
  assert.deepEqual(seen(table), ["a", "r0", "r5", "kid", "r6"]);
});

Deno.test("folding drops no row: opened, all are there in the order of the tree", () => {
  const table = grown([
    { id: "a" },
    ...repeats(30),
    ...others(9),
  ]);
  assert.deepEqual(seen(table, everyFold), drawn(table).map((line) => line.trim()));
  const hidden = [...table.order].filter((row) => isFolded(table, new Set(), row));
  assert.equal(seen(table).length + hidden.length, table.order.length);
});

Deno.test("opening is undone by closing, for each kind alone and with all open", () => {
  const table = grown([
    { id: "a" },
    ...repeats(6),
    ...others(6),
  ]);
  const [r, q] = [table.rowOf("r0"), table.rowOf("qr0")];
  for (const ids of [[], everyFold]) {
    const once = turned(table, ids, r);
    assert.notEqual(openRepeats(table, once).has(r), openRepeats(table, ids).has(r));
    assert.equal(openRepeats(table, once).has(q), openRepeats(table, ids).has(q));
    assert.deepEqual(turned(table, once, table.rowOf("r3")), ids); // by any of the kind
  }
});

Deno.test("what is open stays open, and what is not closed, whatever arrives", () => {
  const table = grown([
    { id: "a" },
    ...repeats(6),
    ...others(6),
  ]);
  const ids = turned(table, [], table.rowOf("r0"));
  merge(table, delta([{ id: "early", parent: "a", start: 2, name: "stat" }])); // now it is the first of them
  merge(table, delta([{ id: "q9", parent: "a", start: 199, name: "q" }]));
  merge(table, delta([{ ...repeats(6)[3], status: 2 }])); // parts them in two
  assert.deepEqual(seen(table, ids).filter((id) => !id.includes("q")), [
    "a",
    "early",
    "r0",
    "r1",
    "r2",
    "r3",
    "r4",
    "r5",
  ]);
  const folded = seen(grown([{ id: "a" }, ...repeats(6)]), ["gone"]);
  assert.deepEqual(folded, ["a", "r0"], "an id that is not here opens nothing");
});

Deno.test("a repeat that turns out to have failed gets its own row", () => {
  const table = grown(repeats(6, { parent: "" }));
  assert.deepEqual(seen(table), ["r0"]);
  merge(table, delta([{ ...repeats(6, { parent: "" })[5], status: 2 }]));
  assert.deepEqual(seen(table), ["r0", "r5"]);
});

Deno.test("a selected repeat is shown by the row that stands for it", () => {
  const table = grown([{ id: "a" }, ...repeats(6)]);
  const visible = visibleRows(table, new Set(), new Set());
  assert.equal(shownFor(table, visible, table.rowOf("r5")), table.rowOf("r0"));
});

Deno.test("any order of deltas folds the same", () => {
  const spans = [{ id: "a" }, ...repeats(9), { id: "z", parent: "a", start: 14.5, name: "other" }];
  const expected = seen(grown(spans));
  for (let seed = 1; seed < 20; seed++) {
    const mixed = spans.map((span, i) => ({ span, key: (i * 7919 * seed) % 101 })).sort((x, y) =>
      x.key - y.key
    );
    const table = grown([]);
    for (const { span } of mixed) merge(table, delta([span]));
    assert.deepEqual(seen(table), expected);
  }
});
