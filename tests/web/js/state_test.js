/** What addresses and the list of sessions promise. */
import assert from "node:assert/strict";
import {
  changed,
  parsePlace,
  search,
  SessionBook,
  sessionHref,
  spanHref,
} from "../../../otel_sessions/backend/web/static/js/state.js";

/** @param {string} id @param {Record<string, unknown>} [fields] @returns {any} */
const session = (id, fields = {}) => ({ id, state: "running", started_at: "1000", revision: 1, ...fields });

/** @param {any[]} sessions @param {Record<string, unknown>} [rest] @returns {any} */
const answer = (sessions, rest = {}) => ({ sessions, next: null, counts: {}, ...rest });

/** @param {any[]} sessions @param {{ next?: string | null, states?: string[] }} [how] */
function loaded(sessions, { next = null, states = [] } = {}) {
  const book = new SessionBook();
  book.load(answer(sessions, { next }), new Set(states));
  return book;
}

Deno.test("a row that ceases to match goes, or stays marked where somebody reads", () => {
  const book = loaded([session("a"), session("b"), session("c")]);
  book.unmatch("a", true);
  assert.deepEqual([...book.order.value].sort(), ["b", "c"]);
  book.unmatch("b", false);
  assert.equal(book.order.value.length, 2);
  assert.ok(book.off.value.has("b"));
  book.put(session("b", { revision: 2 }), true);
  assert.ok(!book.off.value.has("b"));
  book.put(session("d", { started_at: "2000" }), false);
  book.unmatch("d", false);
  assert.deepEqual(book.held.value, []);
});

Deno.test("the chips follow a row that changes its state, without waiting for the next reading", () => {
  const book = new SessionBook();
  const counts = { running: 2, waiting: 0, stale: 0, lost: 0, ended: 5, idle: 0 };
  book.load(answer([session("a"), session("b")], { counts }), new Set());
  book.put(session("a", { state: "ended", revision: 2 }), true);
  assert.deepEqual(book.counts.value, { ...counts, running: 1, ended: 6 });
  book.put(session("a", { state: "ended", revision: 2 }), true);
  book.put(session("a", { revision: 1 }), true); // older than what is known
  assert.deepEqual(book.counts.value, { ...counts, running: 1, ended: 6 });
});

Deno.test("any id survives the way into an address and back", () => {
  for (
    const id of ["plain", "a/b", "what?", "#1", "50%", "%2F", "two words", "😀", "a&b=c", "..", "ä\u202e"]
  ) {
    const path = new URL(sessionHref(id, { view: "tasks" }), "http://x").pathname;
    if (id !== "..") assert.deepEqual(parsePlace(path), { page: "session", id }); // ".." never reaches a server as a part
    const span = new URL(spanHref("t", id === ".." ? "x" : id), "http://x").pathname;
    assert.equal(parsePlace(span).page, "span");
  }
});

Deno.test("places are told apart, and the unknown is unknown", () => {
  const pages = [
    "/",
    "/sessions",
    "/sessions/x",
    "/spans/t/s",
    "/search",
    "/status",
    "/sessions/x/y",
    "/etc",
    "/sessions/%",
  ].map((p) => parsePlace(p).page);
  assert.deepEqual(pages, [
    "sessions",
    "sessions",
    "session",
    "span",
    "search",
    "status",
    "unknown",
    "unknown",
    "session",
  ]);
});

Deno.test("a query takes changes, and an empty value leaves", () => {
  const next = changed(new URLSearchParams("a=1&b=2"), { a: null, b: "", c: "x y" });
  assert.equal(next.toString(), "c=x+y");
  assert.equal(search({ q: "", state: null }), "");
});

Deno.test("news of a shown session changes its row alone", () => {
  const book = loaded([session("a"), session("b", { started_at: "900" })]);
  const order = book.order.value;
  assert.equal(book.put(session("b", { state: "ended", started_at: "900", revision: 2 }), false), "updated");
  assert.equal(book.row("b").value.state, "ended");
  assert.equal(book.order.value, order);
});

Deno.test("old news never overwrites newer", () => {
  const book = loaded([session("a", { revision: 5, state: "ended" })]);
  book.put(session("a", { revision: 4, state: "running" }), true);
  assert.equal(book.row("a").value.state, "ended");
  book.load(answer([session("a", { revision: 3, state: "running" })]), new Set());
  assert.equal(book.row("a").value.state, "ended");
});

Deno.test("a new session waits until it is asked for, once, newest first", () => {
  const book = loaded([session("a")]);
  assert.equal(book.put(session("b", { started_at: "2000" }), false), "held");
  assert.equal(book.put(session("b", { started_at: "2000", revision: 2 }), false), "held");
  assert.equal(book.held.value.length, 1);
  assert.deepEqual(book.order.value, ["a"]);
  book.showHeld();
  assert.deepEqual(book.order.value, ["b", "a"]);
  assert.equal(book.row("b").value.revision, 2);
});

Deno.test("a new session is shown at once where nobody is reading", () => {
  const book = loaded([]);
  assert.equal(book.put(session("b"), true), "shown");
  assert.deepEqual(book.order.value, ["b"]);
});

Deno.test("what belongs to an older page, or to another state, stays away", () => {
  const book = loaded([session("a")], { next: "cursor", states: ["running"] });
  assert.equal(book.put(session("old", { started_at: "10" }), true), "elsewhere");
  assert.equal(book.put(session("new", { started_at: "2000", state: "ended" }), true), "elsewhere");
  assert.equal(book.put(session("new", { started_at: "2000" }), true), "shown");
});

Deno.test("a row that no longer matches the filter stays where it is", () => {
  const book = loaded([session("a")], { states: ["running"] });
  book.put(session("a", { state: "ended", revision: 2 }), false);
  assert.deepEqual(book.order.value, ["a"]);
  assert.equal(book.matches(book.row("a").value), false);
});

Deno.test("a further page comes below, and no row comes twice", () => {
  const book = loaded([session("a")], { next: "cursor" });
  book.append(answer([session("a"), session("z", { started_at: "5" })]));
  assert.deepEqual(book.order.value, ["a", "z"]);
  assert.equal(book.next.value, null);
});

Deno.test("in an order that only the server knows, nothing is placed by guess", () => {
  const book = loaded([session("z", { started_at: "5" })], { next: "cursor" });
  book.load({ ...answer([session("z", { started_at: "5" })]), next: "cursor" }, new Set(), true);
  book.append({
    ...answer([session("a", { started_at: "900" }), session("m", { started_at: "7" })]),
    next: "c",
  });
  assert.deepEqual(book.order.value, ["z", "a", "m"]);
  assert.equal(book.put(session("b", { started_at: "1" }), true), "held");
  assert.equal(book.put(session("a", { revision: 9, started_at: "900" }), true), "updated");
  assert.deepEqual(book.order.value, ["z", "a", "m"]);
});

Deno.test("a removed session is marked, and a held one dropped", () => {
  const book = loaded([session("a")]);
  book.put(session("b", { started_at: "2000" }), false);
  book.remove("a");
  book.remove("b");
  assert.deepEqual([book.order.value, book.held.value, [...book.gone.value]], [["a"], [], ["a"]]);
});
