/** What the counters of a backend mean, in words. */
import assert from "node:assert/strict";
import {
  bytes,
  emitterName,
  isTight,
  losses,
  rate,
  sdkName,
  spark,
} from "../../../otel_sessions/backend/web/static/js/condition.js";

/** @param {Record<string, unknown>} [fields] @returns {any} */
const status = (fields = {}) => ({ version: "0", receivers: { http: {}, grpc: {} }, ...fields });

Deno.test("what was taken is no loss, and what never happened is none", () => {
  assert.deepEqual(losses(status()), []);
  const receivers = { http: { stored: 9, partial: 1, busy: 0 }, grpc: { stored: 3 } };
  assert.deepEqual(losses(status({ receivers, ingest: { rejected: 0 }, store: { missing_spans: 0 } })), []);
});

Deno.test("a refusal is summed over the transports, the most frequent first, each with what to do", () => {
  const receivers = { http: { busy: 2, invalid: 9 }, grpc: { busy: 5 } };
  const found = losses(status({ receivers }));
  assert.deepEqual(found.map((it) => [it.what, it.count]), [["No OTLP", 9], ["Told to come back", 7]]);
  assert.match(found[1].note, /http and grpc/);
  for (const it of found) assert.ok(it.todo);
});

Deno.test("every word that receivers use for a refusal is explained", () => {
  const words = ["invalid", "too_large", "stalled", "busy", "not_stored", "failed", "method", "media_type"];
  for (const word of [...words, "unauthenticated"]) {
    const [it] = losses(status({ receivers: { http: { [word]: 1 } } }));
    assert.ok(it.todo, word);
  }
});

Deno.test("a word that is new, or that objects inherit, is shown as it is", () => {
  for (const word of ["brand_new", "constructor", "__proto__"]) {
    const [it] = losses(status({ receivers: JSON.parse(`{"http": {"${word}": 1}}`) }));
    assert.equal(it.what, word.replaceAll("_", " "));
  }
});

Deno.test("spans that never came lead to their sessions", () => {
  const [it] = losses(status({ store: { missing_spans: 3, incomplete_sessions: 1 } }));
  assert.equal(it.note, "of 1 session");
  assert.equal(it.href, "/sessions?q=missing%3E0");
});

Deno.test("a disk is tight below a gigabyte or a twentieth, and where nobody tells it is not", () => {
  assert.ok(isTight({ folder: "", size: 1e12, free: 4e10 }));
  assert.ok(isTight({ folder: "", size: 1e10, free: 9e8 }));
  assert.ok(!isTight({ folder: "", size: 1e12, free: 6e10 }));
  assert.ok(!isTight({ folder: "", size: null, free: null }));
  assert.ok(!isTight(undefined));
});

Deno.test("figures are as a person reads them", () => {
  assert.deepEqual([0, 1023, 1024, 2 ** 27].map(bytes), ["0 B", "1023 B", "1.0 KiB", "128.0 MiB"]);
  assert.deepEqual([0, 0.01, 0.5, 99.94, 1234.4].map(rate), ["0", "< 0.1", "0.5", "99.9", "1,234"]);
});

Deno.test("a line of rates stays in its box, whatever they are", () => {
  assert.equal(spark([]), "");
  assert.equal(spark([5]), "");
  for (const values of [[0, 0], [1, 2, 3], [1e9, 0, 1e9]]) {
    const points = [...spark(values).matchAll(/[ML]([\d.]+) ([\d.]+)/g)].map((it) => [+it[1], +it[2]]);
    assert.equal(points.length, values.length);
    for (const [x, y] of points) assert.ok(x >= 0 && x <= 100 && y >= 1 && y <= 23);
  }
});

Deno.test("an emitter without a name is said to have none", () => {
  const it = /** @type {any} */ ({ service: null, sdk: null, sdk_version: null, others: false });
  assert.equal(emitterName(it), "no service name");
  assert.equal(sdkName(it), "no word of an SDK");
  assert.equal(emitterName({ ...it, others: true }), "all others");
});
