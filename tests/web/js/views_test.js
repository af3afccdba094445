/** What tasks, timelines and transcripts promise before they are drawn. */
import assert from "node:assert/strict";
import { nested } from "../../../otel_sessions/backend/web/static/js/tasks.js";
import { sentenceOf, stretches, withSilence } from "../../../otel_sessions/backend/web/static/js/timeline.js";
import { paired } from "../../../otel_sessions/backend/web/static/js/transcript.js";

/** @param {string} id @param {string | null} parent_id @param {string} started_at @returns {any} */
const task = (id, parent_id, started_at) => ({ id, parent_id, started_at });
/** @param {number} seconds @param {string} state @returns {any} */
const entry = (seconds, state) => ({ at: `${seconds}000000000`, state, detail: null, root_id: "r" });
/** @param {string} call_id @param {string | null} name @returns {any} */
const call = (call_id, name) => ({ kind: "tool_call", call_id, name });
/** @param {string} call_id @param {string | null} name @returns {any} */
const result = (call_id, name) => ({ kind: "tool_result", call_id, name });
/** @type {any} */
const said = { kind: "assistant", call_id: null, name: null };

Deno.test("tasks stand under their parents, and none is hidden", () => {
  const lines = nested([
    task("b", "a", "3"),
    task("a", null, "1"),
    task("x", "gone", "2"),
    task("p", "q", "5"),
    task("q", "p", "6"),
  ]);
  assert.deepEqual(lines.map(({ task, depth }) => "  ".repeat(depth) + task.id), [
    "a",
    "  b",
    "x",
    "p",
    "  q",
  ]);
});

Deno.test("a strip covers all the time of a session without overlap", () => {
  const parts = stretches(
    [entry(10, "running"), entry(30, "lost"), entry(40, "revived"), entry(50, "ended")],
    { start: 10_000, until: 50_000, state: "ended" },
  );
  assert.deepEqual(parts.map((p) => [p.from / 1000, p.to / 1000, p.state]), [[10, 30, "running"], [
    30,
    40,
    "lost",
  ], [40, 50, "running"]]);
});

Deno.test("what came after the last sign of life is drawn as heard by nobody, and told with both times", () => {
  const all = stretches([entry(10, "running"), entry(30, "stale"), entry(40, "lost")], {
    start: 10_000,
    until: 60_000,
    state: "lost",
  });
  const parts = withSilence(all, 15_000);
  assert.deepEqual(parts.map((p) => [p.from / 1000, p.to / 1000, p.state]), [
    [10, 15, "running"],
    [15, 30, "unheard"],
    [30, 40, "stale"],
    [40, 60, "lost"],
  ]);
  assert.deepEqual(withSilence(all, 5_000).map((p) => p.state), ["unheard", "stale", "lost"]);
  assert.deepEqual(withSilence(all, 35_000), all);
  assert.match(sentenceOf(parts[3], 15_000), /^last heard .*15, lost since .*40$/);
  assert.match(sentenceOf(parts[3], null), /^lost 20.* s from .*40$/);
});

Deno.test("a session without any event is drawn as inferred, not as running", () => {
  assert.deepEqual(stretches([], { start: 1, until: 9, state: "running" }).map((p) => p.state), ["inferred"]);
});

Deno.test("a result joins its call, wherever it comes, and one without a call stands alone", () => {
  const cards = paired([call("1", "a"), said, result("1", "a"), result("9", "a"), result("1", "a")]);
  assert.deepEqual(cards.map((c) => [c.item.kind, c.result?.kind ?? null]), [
    ["tool_call", "tool_result"],
    ["assistant", null],
    ["tool_result", null],
    ["tool_result", null],
  ]);
});

Deno.test("an id that several calls bear never gives one the result of another", () => {
  const cards = paired([
    call("1", "flights"),
    call("1", "hotels"),
    result("1", "hotels"),
    result("1", null),
    call("1", "rain"),
    result("1", "sun"),
    result("1", null),
  ]);
  assert.deepEqual(cards.map((c) => [c.item.name, c.result ? c.result.name : "-"]), [
    ["flights", null],
    ["hotels", "hotels"],
    ["rain", null],
    ["sun", "-"],
  ]);
});
