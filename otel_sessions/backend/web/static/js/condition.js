/**
 * What the counters of a backend mean, in words: what was refused or is missing, and what to do. Pure.
 *
 * @import { Status } from "./types.d.ts"
 */
import { count, lexicon, plural } from "./format.js";

/** Words of the receivers for requests that were taken. */
const TAKEN = ["stored", "partial"];

/** What became of requests that were not: what it is called, and what to do about it. */
const REFUSED = lexicon({
  invalid: [
    "No OTLP",
    "The body can't be read as OTLP. Look for what rewrites it on its way; the answer said where.",
  ],
  too_large: [
    "Too large",
    "Send smaller batches: OTEL_BSP_MAX_EXPORT_BATCH_SIZE, in a Collector send_batch_max_size; or serve --max-body.",
  ],
  stalled: [
    "Cut short",
    "Senders stopped within a body: killed, or a network that drops. They send it again.",
  ],
  busy: [
    "Told to come back",
    "More came than could be stored at once. They come back by themselves; a faster disk helps.",
  ],
  not_stored: [
    "Could not be stored",
    "The disk refused. They come back by themselves; see what is said of the disk.",
  ],
  failed: ["A fault of ours", "The log of the server has the details. Please report it."],
  method: ["Not sent by POST", "Somebody opened an address for telemetry in a browser."],
  path: [
    "To a wrong path",
    "Spans go to /v1/traces, logs to /v1/logs: set OTEL_EXPORTER_OTLP_ENDPOINT without a path.",
  ],
  media_type: ["In an unknown format", "Send protobuf or JSON: OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."],
  forbidden: [
    "With a token that may only read",
    "In the agent: the token of serve --token, or that of serve --send-token.",
  ],
  unauthenticated: [
    "Without the token",
    "In the agent: OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN.",
  ],
});

/**
 * @typedef {{ what: string, count: number, note: string, todo: string, href?: string }} Loss
 *
 * One kind of what is not stored: `note` tells where or of what.
 */

/**
 * All that was refused, rejected or never came since the start; empty where nothing was.
 *
 * @param {Status} status
 * @returns {Loss[]}
 */
export function losses(status) {
  return [...refusals(status.receivers ?? {}), ...stored(status)];
}

/** @param {Record<string, Record<string, number>>} receivers @returns {Loss[]} */
function refusals(receivers) {
  /** @type {Map<string, Map<string, number>>} */
  const found = new Map();
  for (const [transport, words] of Object.entries(receivers)) {
    for (const [word, n] of Object.entries(words)) {
      if (!n || TAKEN.includes(word)) continue;
      found.set(word, (found.get(word) ?? new Map()).set(transport, n));
    }
  }
  return [...found].map(([word, by]) => {
    const [what, todo] = REFUSED[word] ?? [word.replaceAll("_", " "), ""];
    const n = [...by.values()].reduce((sum, each) => sum + each, 0);
    return { what, count: n, note: `requests, over ${[...by.keys()].join(" and ")}`, todo };
  }).sort((a, b) => b.count - a.count);
}

/** @param {Status} status @returns {Loss[]} */
function stored({ ingest, store }) {
  /** @type {Loss[]} */
  const found = [];
  if (ingest?.rejected) {
    found.push({
      what: "Left out of requests",
      count: ingest.rejected,
      note: "spans, logs or points; the rest was stored",
      todo: "They have no valid trace id and span id, which is a fault of whoever made them.",
    });
  }
  if (ingest?.failed_commits) {
    found.push({
      what: "Commits that failed",
      count: ingest.failed_commits,
      note: "nothing of them was acknowledged",
      todo: "Senders were told to come back. The log of the server says why.",
    });
  }
  if (store?.missing_spans) {
    found.push({
      what: "Spans that never came",
      count: store.missing_spans,
      note: `of ${plural(store.incomplete_sessions ?? 0, "session")}`,
      todo:
        "They are known by counts or by their children. In the agent: otel-sessions doctor, and spool list.",
      href: "/sessions?q=missing%3E0",
    });
  }
  return found;
}

const LITTLE = 1e9; // bytes
const SHARE = 0.05;

/** Whether the disk is nearly full: where nothing can be stored soon. @param {Status["disk"]} disk */
export function isTight(disk) {
  if (!disk || disk.free === null || disk.size === null) return false;
  return disk.free < LITTLE || disk.free < disk.size * SHARE;
}

/** Bytes as a person reads them, in powers of 1,024. @param {number} n */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at++;
  }
  return `${at ? n.toFixed(1) : n} ${units[at]}`;
}

/** Things a second: exact where few. @param {number} n */
export function rate(n) {
  if (n === 0) return "0";
  if (n < 0.1) return "< 0.1";
  return n < 100 ? n.toFixed(1) : count(Math.round(n));
}

/** A path for the last rates in a box of 100 by 24; "" for fewer than two. @param {number[]} values */
export function spark(values) {
  if (values.length < 2) return "";
  const most = Math.max(...values, 1e-9);
  const step = 100 / (values.length - 1);
  return values.map((value, i) =>
    `${i ? "L" : "M"}${(i * step).toFixed(1)} ${(23 - (value / most) * 22).toFixed(1)}`
  ).join("");
}

/** Who an emitter is. @param {NonNullable<Status["emitters"]>[number]} emitter */
export function emitterName(emitter) {
  return emitter.others ? "all others" : emitter.service ?? "no service name";
}

/** What it sends with. @param {NonNullable<Status["emitters"]>[number]} emitter */
export function sdkName(emitter) {
  if (emitter.others) return "beyond the first hundred";
  return [emitter.sdk, emitter.sdk_version].filter(Boolean).join(" ") || "no word of an SDK";
}
