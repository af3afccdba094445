/** What the box offers at the caret. */
import assert from "node:assert/strict";
import { around, complete, quoted, wordAt } from "../../../otel_sessions/backend/web/static/js/filter.js";

/** @param {string} name @param {string[]} operators @param {string[]} values @param {boolean} [nullable] */
const field = (name, operators, values, nullable = true) => ({
  name,
  kind: "text",
  about: `what ${name} is`,
  operators,
  values,
  nullable,
});
const FIELDS = [
  field("state", [":", "!="], ["running", "lost"], false),
  field("tool", [":", "="], ["search", "book a room", "research"]),
  field("tokens", [">", "<"], []),
  field("tokens.in", [">", "<"], []),
];

/** The labels offered at the end of a text, or at the bar in it. @param {string} text */
function offered(text) {
  const caret = text.includes("|") ? text.indexOf("|") : text.length;
  return complete(text.replace("|", ""), caret, FIELDS).options.map((option) => option.label);
}

/** The text once an option was taken. @param {string} text @param {number} [no] */
function taken(text, no = 0) {
  const { from, to, options } = complete(text, text.length, FIELDS);
  return text.slice(0, from) + options[no].text + text.slice(to);
}

Deno.test("fields are offered with the operator that is likeliest, those that begin so first", () => {
  assert.deepEqual(offered("to"), ["tool:", "tokens>", "tokens.in>"]);
  assert.deepEqual(offered("plan -ST"), ["state:"]);
  assert.deepEqual(offered("oke"), ["tokens>", "tokens.in>"]);
  assert.equal(offered("").length, FIELDS.length);
  assert.deepEqual(offered("旅行"), []);
  assert.deepEqual(offered('"to'), []);
});

Deno.test("values are offered after an operator and after each comma", () => {
  assert.deepEqual(offered("state:"), ["running", "lost"]);
  assert.deepEqual(offered("-state!=l"), ["lost"]);
  assert.deepEqual(offered("state:lost,"), ["running", "lost"]);
  assert.deepEqual(offered("tool:sea"), ["search", "research"]);
  assert.deepEqual(offered("tool:"), ["search", "book a room", "research", "unknown"]);
  assert.deepEqual(offered("tool:search"), []);
  assert.deepEqual(offered('tool:"book a'), ["book a room"]);
  assert.deepEqual(offered("nothing:x"), []);
});

Deno.test("what is taken replaces the word at the caret and is a filter", () => {
  assert.equal(taken("plan -sta"), "plan -state:");
  assert.equal(taken("tool:boo"), 'tool:"book a room"');
  assert.equal(taken('tool:"boo'), 'tool:"book a room"');
  assert.equal(taken("state:lost,ru"), "state:lost,running");
  assert.deepEqual(wordAt("a state:lo b", 9), { from: 2, to: 10 });
  assert.deepEqual(wordAt('x:"a b" c', 5), { from: 0, to: 7 });
});

Deno.test("values that are no bare word are quoted", () => {
  assert.deepEqual(["a", "a b", "a,b", 'a"b', "unknown", "旅行"].map(quoted), [
    "a",
    '"a b"',
    '"a,b"',
    '"a\\"b"',
    '"unknown"',
    "旅行",
  ]);
});

Deno.test("a fault is cut out by code points", () => {
  assert.deepEqual(around("😀 stat:x", 2, "stat"), ["😀 ", "stat", ":x"]);
});
