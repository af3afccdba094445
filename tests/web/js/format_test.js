/** What words for values promise. */
import assert from "node:assert/strict";
import {
  age,
  anyValue,
  compact,
  compareNs,
  completeness,
  cost,
  count,
  duration,
  endedState,
  firstLine,
  kindClass,
  link,
  pretty,
  sessionDuration,
  shownState,
  stateLook,
  tickLabel,
  tickStep,
  tokens,
  utc,
  visible,
} from "../../../otel_sessions/backend/web/static/js/format.js";

/** @param {Record<string, unknown>} fields @returns {any} */
const session = (fields) => ({
  state: "ended",
  outcome: null,
  end_reason: null,
  waiting_for: null,
  started_at: "1000000000000000000",
  last_seen_at: "1000000010000000000",
  last_alive_at: "1000000010000000000",
  ended_at: null,
  duration: null,
  spans: 4,
  missing_spans: 0,
  input_tokens: null,
  output_tokens: null,
  ...fields,
});
const NOW = 1000000040000; // ms: 40 s after the start, 30 s after the last sign of life

Deno.test("an error's first line is the one that says something", () => {
  assert.equal(firstLine("\n  \nRuntimeError: no\n  at x"), "RuntimeError: no");
  assert.equal(firstLine(""), "");
});

Deno.test("what is unknown is called unknown, and 0 is 0", () => {
  assert.deepEqual(
    [count(null), count(undefined), cost(null), duration(null), duration(NaN)],
    Array(5).fill("unknown"),
  );
  assert.deepEqual([count(0), cost(0), duration(0)], ["0", "$0.00", "0 ns"]);
  assert.equal(tokens(session({})), null);
  assert.equal(tokens(session({ output_tokens: 0 })), 0);
});

Deno.test("durations keep three figures, and never say 60 s", () => {
  const words = [
    999,
    1_500,
    412_000_000,
    2_311_000_000,
    30e9,
    59.96e9,
    252e9,
    3599.6e9,
    3600e9,
    3840e9,
    90_000e9,
  ].map(duration);
  assert.deepEqual(words, [
    "999 ns",
    "1.50 µs",
    "412 ms",
    "2.31 s",
    "30.0 s",
    "1 min",
    "4 min 12 s",
    "1 h",
    "1 h",
    "1 h 4 min",
    "1 d 1 h",
  ]); // deno-fmt-ignore
  assert.equal(duration(-5e6), "−5.00 ms");
});

Deno.test("an axis has round labels", () => {
  assert.deepEqual([0, 2e9, 2.5e9, 10e9, 60e9, 500e6, 200e6].map(tickLabel), [
    "0",
    "2 s",
    "2.5 s",
    "10 s",
    "1 min",
    "500 ms",
    "200 ms",
  ]);
  for (const span of [1, 7e3, 3e6, 11e9, 400e9, 86400e9 * 9]) assert.ok(span / tickStep(span, 7) <= 7.001);
});

Deno.test("small counts keep their digits, big ones their order", () => {
  assert.deepEqual([0, 950, 1000, 4812, 41_920, 208_411, 999_600, 4_820_000].map(compact), [
    "0",
    "950",
    "1k",
    "4.8k",
    "42k",
    "208k",
    "1M",
    "4.8M",
  ]);
});

Deno.test("an age is never longer than the time that passed", () => {
  assert.deepEqual([-5, 999, 59_999, 60_000, 3_599_999, 86_400_000].map(age), [
    "now",
    "now",
    "59 s",
    "1 min",
    "59 min",
    "1 d",
  ]);
});

Deno.test("UTC shows every nanosecond", () => {
  assert.equal(utc("1763730000123456789"), "2025-11-21 13:00:00.123456789 UTC");
});

Deno.test("ns strings compare as numbers", () => {
  assert.ok(compareNs("999", "1000") < 0);
  assert.ok(compareNs("1763730000123456790", "1763730000123456789") > 0);
  assert.equal(compareNs("5", "5"), 0);
});

Deno.test("an ended session says how, and guesses nothing", () => {
  const said = (/** @type {string | null} */ outcome, /** @type {string | null} */ reason) => {
    const { look, word, note } = endedState(outcome, reason);
    return [look, word, note];
  };
  assert.deepEqual(said("ok", "completed"), ["ended", "Completed", ""]);
  assert.deepEqual(said("error", "error"), ["failed", "Failed", ""]);
  assert.deepEqual(said("error", "timeout"), ["failed", "Failed", "timeout"]);
  assert.deepEqual(said("cancelled", "signal"), ["ended", "Cancelled", "signal"]);
  assert.deepEqual(said(null, "process_exit"), ["ended", "Ended", "process exit"]);
  assert.deepEqual(said(null, null), ["ended", "Ended", "outcome unknown"]);
});

Deno.test("an open state says since when, or for what", () => {
  const note = (/** @type {Record<string, unknown>} */ fields) => shownState(session(fields), NOW).note;
  assert.equal(note({ state: "stale" }), "no news for 30 s");
  assert.equal(note({ state: "waiting", waiting_for: "approval" }), "for approval");
  assert.equal(note({ state: "idle", outcome: "error" }), "30 s, failed");
  assert.equal(note({ state: "idle", waiting_for: "approval" }), "30 s, needs approval");
  assert.equal(note({ state: "running", inferred: true, outcome: "error" }), "failed");
  assert.equal(
    note({ state: "running", inferred: true, waiting_for: "approval" }),
    "needs approval",
  );
  assert.match(note({ state: "lost" }), /^last heard /);
});

Deno.test("a state nobody told us about is shown by its name", () => {
  assert.equal(shownState(session({ state: "paused" }), NOW).word, "paused");
});

Deno.test("a name that every object has is no word of ours", () => {
  for (const name of ["__proto__", "constructor", "toString"]) {
    assert.deepEqual(stateLook(name), { look: "other", glyph: "·", word: name });
    assert.equal(endedState(name, name).word, "Ended");
    assert.equal(shownState(session({ state: name }), NOW).note, "");
    assert.equal(kindClass(name), "k-step");
  }
});

Deno.test("only a session that is heard grows", () => {
  assert.equal(sessionDuration(session({ state: "running" }), NOW), 40e9);
  assert.equal(sessionDuration(session({ state: "lost" }), NOW), 10e9);
  assert.equal(sessionDuration(session({ duration: "7" }), NOW), 7);
});

Deno.test("completeness is claimed only where it is known", () => {
  const words = (/** @type {Record<string, unknown>} */ fields, losses = {}) => {
    const { look, word, note } = completeness(session(fields), losses, () => NOW);
    return [look, word, note];
  };
  assert.deepEqual(words({}), ["complete", "Complete", "4 of 4 spans"]);
  assert.deepEqual(words({ state: "running" }), ["so-far", "None missing so far", "4 spans"]);
  assert.deepEqual(words({ state: "lost" }), [
    "untold",
    "None known missing",
    "4 spans up to the last sign of life",
  ]);
  assert.deepEqual(words({ missing_spans: null }), ["untold", "Completeness unknown", "4 spans here"]);
  assert.deepEqual(words({ missing_spans: 1 }, { queue_full: 1 }), [
    "missing",
    "1 span missing",
    "queue full: 1",
  ]);
  assert.deepEqual(words({ missing_spans: 3 }), ["missing", "3 spans missing", "reason unknown"]);
  assert.deepEqual(words({ missing_spans: 3, state: "lost" }, { process_died: 3 }), [
    "missing",
    "At least 3 spans missing",
    "unknown, the process died: 3",
  ]);
});

Deno.test("what nobody gave up is on its way for a while, not missing", () => {
  const words = (/** @type {number} */ silence, losses = {}) => {
    const last = String(NOW * 1e6 - silence * 1e9);
    const s = session({ missing_spans: 3, state: "ended", last_seen_at: last });
    const { look, word, note } = completeness(s, losses, () => NOW);
    return [look, word, note];
  };
  assert.deepEqual(words(2, { not_received: 3 }), ["so-far", "3 spans on the way", "4 here"]);
  assert.deepEqual(words(20, { not_received: 3 }), [
    "missing",
    "3 spans missing",
    "sent by nobody so far, or lost on the way: 3",
  ]);
  assert.deepEqual(words(2, { not_received: 1, queue_full: 2 }), [
    "missing",
    "2 spans missing",
    "queue full: 2",
  ]);
});

Deno.test("control characters and marks that turn text are made visible", () => {
  assert.equal(visible("a\u0000b\u001b[31m"), "a␀b␛[31m");
  assert.equal(visible("user\u202egnp.exe"), "user⟨U+202E⟩gnp.exe");
  assert.equal(visible("two\r\nlines\tand a tab"), "two\nlines\tand a tab");
  assert.equal(visible("שלום 锂电池 👩‍💻"), "שלום 锂电池 👩‍💻");
});

Deno.test("JSON is laid out, and no figure in it changes", () => {
  assert.equal(pretty('{"a":1.00,"b":12345678901234567890}'), '{"a": 1.00, "b": 12345678901234567890}');
  assert.equal(pretty('["\\u9502\\u7535", {"a": 1, "a": 2}, []]'), '["锂电", {"a": 1, "a": 2}, []]');
  assert.equal(pretty(`[${"12345678,".repeat(9)}1]`), `[\n${"  12345678,\n".repeat(9)}  1\n]`);
  assert.equal(pretty('{"cut": "sho'), '{"cut": "sho');
  assert.equal(pretty("[not json]"), "[not json]");
  assert.equal(pretty({ a: ["x", null] }), '{"a": ["x", null]}');
});

Deno.test("every type of attribute has its text", () => {
  assert.deepEqual(anyValue({ intValue: "9223372036854775807" }), {
    type: "int",
    text: "9223372036854775807",
  });
  assert.deepEqual(anyValue({ boolValue: false }), { type: "bool", text: "false" });
  assert.deepEqual(anyValue({ doubleValue: 0 }), { type: "double", text: "0" });
  assert.deepEqual(anyValue({ stringValue: "" }), { type: "string", text: "" });
  assert.deepEqual(anyValue({ arrayValue: {} }), { type: "array", text: "[]" });
  assert.deepEqual(anyValue({ kvlistValue: { values: [{ key: "__proto__", value: { intValue: "1" } }] } }), {
    type: "map",
    text: '{"__proto__": "1"}',
  });
  assert.deepEqual(anyValue(undefined), { type: "empty", text: "" });
});

Deno.test("only http and https become links", () => {
  assert.equal(link("https://example.org/a?b=c"), "https://example.org/a?b=c");
  for (
    const text of [
      "javascript:alert(1)",
      "data:text/html,x",
      "JAVASCRIPT:https://x",
      "https://a b",
      "//x",
      "see https://x.org",
      "http://[",
    ]
  ) {
    assert.equal(link(text), null, text);
  }
});
