/** What folding the list promises: bare traces take one line, and nothing that matters is among them. */
import assert from "node:assert/strict";
import { isBare, lines, namesOf } from "../../../otel_sessions/backend/web/static/js/bare.js";

/** @param {Record<string, unknown>} [fields] @returns {any} */
const trace = (fields = {}) => ({
  session_id: null,
  name: "auth",
  service: "codex_exec",
  runs_count: 0,
  tasks_count: 0,
  errors: 0,
  turns: null,
  model_calls: 0,
  tool_calls: 0,
  agents: [],
  outcome: null,
  ...fields,
});

/** @param {any[]} sessions */
const parted = (sessions) =>
  lines(sessions.map((_, i) => `${i}`), (id) => sessions[Number(id)]).map((l) => l.join(""));

Deno.test("a trace is bare only where it tells of nothing", () => {
  assert.ok(isBare(trace()));
  const telling = {
    session_id: "s",
    runs_count: 1,
    tasks_count: 1,
    errors: 1,
    turns: 1,
    model_calls: 1,
    tool_calls: 1,
    agents: ["a"],
    outcome: "error",
  };
  for (const [field, value] of Object.entries(telling)) assert.ok(!isBare(trace({ [field]: value })), field);
});

Deno.test("neighbours that are bare are one line, all others their own, and none is lost", () => {
  const work = trace({ model_calls: 1 });
  assert.deepEqual(parted([trace(), trace(), trace(), work, trace(), trace()]), ["012", "3", "4", "5"]);
  assert.deepEqual(parted([work, work, work]), ["0", "1", "2"]);
  assert.deepEqual(parted([]), []);
});

Deno.test("bare traces of another service are another line", () => {
  const other = trace({ service: "web" });
  assert.deepEqual(parted([trace(), trace(), trace(), other, other, other]), ["012", "345"]);
});

Deno.test("names are told once, the most frequent first", () => {
  const names = ["b", "a", "c", "c", null].map((name) => trace({ name }));
  assert.deepEqual(namesOf(names), ["c", "a", "b"]);
});
