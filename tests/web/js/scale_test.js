/** What the mapping of time to place promises. */
import assert from "node:assert/strict";
import { Flag } from "../../../otel_sessions/backend/web/static/js/flags.js";
import { merge, Table } from "../../../otel_sessions/backend/web/static/js/rows.js";
import { endOf, extent, idleGaps, Scale } from "../../../otel_sessions/backend/web/static/js/scale.js";

/** A table of bars: id, parent, start, duration. @param {[string, string, number, number | null][]} bars */
function table(bars) {
  const all = (/** @type {number} */ value) => bars.map(() => value);
  const made = new Table("0");
  merge(made, {
    session: "s",
    base: "0",
    revision: 1,
    traces: ["t"],
    names: ["n"],
    categories: ["step"],
    services: [],
    tasks: [],
    labels: [],
    columns: {
      trace: all(0),
      id: bars.map((b) => b[0]),
      parent_id: bars.map((b) => b[1]),
      name: all(0),
      category: all(0),
      service: all(-1),
      start: bars.map((b) => b[2]),
      duration: bars.map((b) => b[3]),
      status: all(0),
      flags: bars.map((b) => (b[3] === null ? Flag.OPEN : 0)),
      task: all(-1),
      input_tokens: bars.map(() => null),
      output_tokens: bars.map(() => null),
      label: all(-1),
      kind: all(1),
    },
  });
  return made;
}

Deno.test("an open span lasts until it was last known to be open, and never ends before it began", () => {
  const t = table([["a", "", 100, null], ["b", "", 900, null]]);
  assert.equal(endOf(t, 0, 500), 500);
  assert.equal(endOf(t, 1, 500), 900);
});

Deno.test("the extent holds every bar, and is never empty", () => {
  assert.deepEqual(extent(table([["a", "", -5, 10], ["b", "", 100, null]]), 400), [-5, 400]);
  assert.deepEqual(extent(table([["a", "", 7, 0]]), 0), [7, 8]);
  assert.deepEqual(extent(new Table("0"), 0), [0, 1]);
});

Deno.test("idle is where no leaf is at work; a parent alone is not work", () => {
  const t = table([["root", "", 0, 1000], ["a", "root", 0, 100], ["b", "root", 900, 100]]);
  assert.deepEqual(idleGaps(t, 0, [0, 1000], 0.15), [[100, 900]]);
  assert.deepEqual(idleGaps(t, 0, [0, 1000], 0.9), []);
});

Deno.test("without gaps a scale is a straight line", () => {
  const scale = new Scale(100, 300);
  assert.deepEqual([100, 200, 300].map((t) => scale.at(t)), [0, 0.5, 1]);
  assert.deepEqual([0, 0.25, 1].map((p) => scale.timeAt(p)), [100, 150, 300]);
});

Deno.test("gaps are squeezed, order is kept, and every place leads back to its time", () => {
  const scale = new Scale(0, 1000, [[100, 900]]);
  assert.ok(scale.at(900) - scale.at(100) < 0.03);
  assert.equal(scale.at(1000), 1);
  for (let t = 0; t < 1000; t += 50) {
    assert.ok(scale.at(t) <= scale.at(t + 50));
    assert.ok(Math.abs(scale.timeAt(scale.at(t)) - t) < 1e-6);
  }
});

Deno.test("ticks are few, inside the window, and none lies in a gap", () => {
  const scale = new Scale(0, 100e9, [[10e9, 90e9]]);
  const ticks = scale.ticks(0, 6);
  assert.ok(ticks.length >= 3 && ticks.length <= 8, String(ticks));
  assert.ok(ticks.every((t) => t <= 10e9 || t >= 90e9));
});
