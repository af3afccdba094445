/** What tasks, timelines and transcripts promise before they are drawn. */
import assert from "node:assert/strict";
import { nested } from "../../../otel_sessions/backend/web/static/js/tasks.js";
import { stretches } from "../../../otel_sessions/backend/web/static/js/timeline.js";
import { paired } from "../../../otel_sessions/backend/web/static/js/transcript.js";

/** @param {string} id @param {string | null} parent_id @param {string} started_at @returns {any} */
const task = (id, parent_id, started_at) => ({ id, parent_id, started_at });
/** @param {number} seconds @param {string} state @returns {any} */
const entry = (seconds, state) => ({ at: `${seconds}000000000`, state, detail: null, root_id: "r" });
/** @param {string} kind @param {string | null} call_id @returns {any} */
const item = (kind, call_id) => ({ kind, call_id });

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

Deno.test("a session without any event is drawn as inferred, not as running", () => {
  assert.deepEqual(stretches([], { start: 1, until: 9, state: "running" }).map((p) => p.state), ["inferred"]);
});

Deno.test("a result joins its call, wherever it comes, and one without a call stands alone", () => {
  const cards = paired([
    item("tool_call", "1"),
    item("assistant", null),
    item("tool_result", "1"),
    item("tool_result", "9"),
    item("tool_result", "1"),
  ]);
  assert.deepEqual(cards.map((c) => [c.item.kind, c.result?.kind ?? null]), [
    ["tool_call", "tool_result"],
    ["assistant", null],
    ["tool_result", null],
    ["tool_result", null],
  ]);
});
