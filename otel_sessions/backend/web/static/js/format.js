/**
 * Words for values: times, durations, counts, states. Pure: no DOM, no clock of its own.
 *
 * @import { AnyValue, KeyValue, Ns, Session } from "./types.d.ts"
 */

import { layout } from "./json.js";

export const UNKNOWN = "unknown";

/**
 * Words by name, looked up by names that come from outside: what is not in the list is undefined, even
 * where every object has something by that name.
 *
 * @template T
 * @param {Record<string, T>} entries
 * @returns {Record<string, T | undefined>}
 */
export function lexicon(entries) {
  return Object.assign(Object.create(null), entries);
}

/** A count with its thousands parted. Not by Intl, whose first use costs a page tens of milliseconds. @param {number | null | undefined} n */
export function count(n) {
  if (n === null || n === undefined) return UNKNOWN;
  const [whole, part] = String(n).split(".");
  const parted = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part ? `${parted}.${part}` : parted;
}

/**
 * A count in at most four characters: 950, 4.8k, 41k, 1.2M.
 *
 * @param {number} n
 */
export function compact(n) {
  const unit = n >= 999_500 ? [1e6, "M"] : n >= 1000 ? [1e3, "k"] : null;
  if (!unit) return String(n);
  const scaled = n / Number(unit[0]);
  return `${scaled < 9.95 ? scaled.toFixed(1).replace(/\.0$/, "") : Math.round(scaled)}${unit[1]}`;
}

/** @param {number | null} usd */
export function cost(usd) {
  if (usd === null) return UNKNOWN;
  if (usd !== 0 && Math.abs(usd) < 0.01) return `$${usd.toPrecision(2)}`;
  return `$${usd.toFixed(2)}`;
}

/**
 * A duration as a person says it, three figures at most below a minute.
 *
 * @param {number | null | undefined} ns
 * @returns {string}
 */
export function duration(ns) {
  if (ns === null || ns === undefined || Number.isNaN(ns)) return UNKNOWN;
  if (ns < 0) return `−${duration(-ns)}`;
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 999.5e3) return `${figures(ns / 1e3)} µs`;
  if (ns < 999.5e6) return `${figures(ns / 1e6)} ms`;
  if (ns < 59.95e9) return `${figures(ns / 1e9)} s`;
  const s = Math.round(ns / 1e9);
  if (s < 3600) return pair(Math.floor(s / 60), "min", s % 60, "s");
  const min = Math.round(s / 60);
  if (min < 1440) return pair(Math.floor(min / 60), "h", min % 60, "min");
  const h = Math.round(min / 60);
  return pair(Math.floor(h / 24), "d", h % 24, "h");
}

/** A duration for an axis, where round figures need no zeros. @param {number} ns */
export function tickLabel(ns) {
  return ns === 0 ? "0" : duration(ns).replace(/\.0+ |(\.\d*[1-9])0+ /, "$1 ");
}

/** @param {number} x */
function figures(x) {
  return x < 9.995 ? x.toFixed(2) : x < 99.95 ? x.toFixed(1) : x.toFixed(0);
}

/** @param {number} big @param {string} a @param {number} small @param {string} b */
function pair(big, a, small, b) {
  return small ? `${big} ${a} ${small} ${b}` : `${big} ${a}`;
}

/**
 * How long ago, coarse: it may be read for a second without being wrong.
 *
 * @param {number} ms
 */
export function age(ms) {
  if (ms < 1000) return "now";
  if (ms < 60e3) return `${Math.floor(ms / 1e3)} s`;
  if (ms < 3600e3) return `${Math.floor(ms / 60e3)} min`;
  if (ms < 86400e3) return `${Math.floor(ms / 3600e3)} h`;
  return `${Math.floor(ms / 86400e3)} d`;
}

/** Unix ms of a ns string, good to a quarter of a microsecond. @param {Ns} ns */
export function toMs(ns) {
  return Number(ns) / 1e6;
}

/** The exact difference of two ns strings; safe up to 104 days. @param {Ns} a @param {Ns} b */
export function nsBetween(a, b) {
  return Number(BigInt(b) - BigInt(a));
}

/** @param {number} n @param {number} width */
const pad = (n, width) => String(n).padStart(width, "0");

/** Local wall time, 14:31:07. @param {number} ms */
export function clock(ms) {
  const d = new Date(ms);
  return `${pad(d.getHours(), 2)}:${pad(d.getMinutes(), 2)}:${pad(d.getSeconds(), 2)}`;
}

/** Local wall time to the millisecond, 14:31:07.042. @param {number} ms */
export function clockMs(ms) {
  return `${clock(ms)}.${pad(new Date(ms).getMilliseconds(), 3)}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Local date, 21 Nov 2026. @param {number} ms */
export function date(ms) {
  const d = new Date(ms);
  return `${d.getDate()} ${MONTHS[d.getMonth()]} ${d.getFullYear()}`;
}

/** Local time, with the date where that is not today's. @param {number} ms @param {number} now */
export function when(ms, now) {
  const same = new Date(ms).toDateString() === new Date(now).toDateString();
  return same ? clock(ms) : `${date(ms)}, ${clock(ms)}`;
}

/** UTC to the nanosecond, for the hover. @param {Ns} ns */
export function utc(ns) {
  const value = BigInt(ns);
  const seconds = new Date(Number(value / 1_000_000_000n) * 1000).toISOString().slice(0, 19);
  return `${seconds.replace("T", " ")}.${pad(Number(value % 1_000_000_000n), 9)} UTC`;
}

const STATES = lexicon({
  running: { glyph: "●", word: "Running" },
  waiting: { glyph: "◔", word: "Waiting" },
  stale: { glyph: "◌", word: "Stale" },
  lost: { glyph: "✕", word: "Lost" },
  idle: { glyph: "–", word: "Idle" },
  ended: { glyph: "✓", word: "Ended" },
  failed: { glyph: "!", word: "Failed" },
  cancelled: { glyph: "⊘", word: "Cancelled" },
  revived: { glyph: "↺", word: "Heard again" },
  resumed: { glyph: "↻", word: "Resumed" },
  done: { glyph: "✓", word: "Done" },
  refused: { glyph: "⊘", word: "Refused" },
  timed_out: { glyph: "!", word: "Timed out" },
});

/** What kinds of work a span can be; each has a class and a colour of its own. */
export const CATEGORIES = [
  "session",
  "task",
  "agent",
  "model",
  "embedding",
  "tool",
  "retrieval",
  "workflow",
  "step",
];

/** The class that colours a kind of work; "missing" for a span that is not here. @param {string} category */
export function kindClass(category) {
  return CATEGORIES.includes(category) || category === "missing" ? `k-${category}` : "k-step";
}

export const STATE_ORDER = /** @type {const} */ (["running", "waiting", "stale", "lost", "ended", "idle"]);

/**
 * Glyph, word and class of a state's name; a name we do not know is shown as it is, and gets no class of ours.
 *
 * @param {string} name
 */
export function stateLook(name) {
  const known = STATES[name];
  return known ? { look: LOOKS[name] ?? name, ...known } : { look: "other", glyph: "·", word: name };
}

/** States that share the colour of another. */
const LOOKS = lexicon({
  done: "ended",
  failed: "failed",
  timed_out: "failed",
  refused: "waiting",
  cancelled: "ended",
});

const GLYPHS = lexicon({ ok: "✓", cancelled: "⊘" });
const OUTCOMES = lexicon({ ok: "Completed", error: "Failed", cancelled: "Cancelled" });

/**
 * What a session's state is shown as: glyph, word, the class for its colour, and what follows in small.
 * An ended session says how it ended; whatever nobody knows is left out, not guessed.
 *
 * @param {Session} s
 * @param {number} now Unix ms, by the server's clock
 * @returns {{ look: string, glyph: string, word: string, note: string }}
 */
export function shownState(s, now) {
  if (s.state === "ended") return endedState(s.outcome, s.end_reason);
  const heard = toMs(s.last_alive_at);
  const notes = lexicon({
    running: s.inferred ? toldBySpans(s) || "inferred" : "",
    waiting: s.waiting_for ? `for ${s.waiting_for}` : "",
    stale: `no news for ${age(now - heard)}`,
    lost: `last heard ${when(heard, now)}`,
    idle: [age(now - heard), toldBySpans(s)].filter(Boolean).join(", "),
  });
  return { ...stateLook(s.state), note: notes[s.state] ?? "" };
}

/** What spans alone tell of a session: what its last turn waits for, or how it went. @param {Session} s */
function toldBySpans(s) {
  if (s.waiting_for) return `needs ${s.waiting_for}`;
  return s.outcome ? (OUTCOMES[s.outcome] ?? s.outcome).toLowerCase() : "";
}

/**
 * How it turned out, and in small why it ended unless that says the same; as `otel-sessions show` has it.
 *
 * @param {string | null} outcome
 * @param {string | null} reason
 */
export function endedState(outcome, reason) {
  const word = (outcome && OUTCOMES[outcome]) ?? "Ended";
  const why = reason && !["completed", "error", outcome].includes(reason) ? reason.replaceAll("_", " ") : "";
  const note = why || (outcome || reason ? "" : "outcome unknown");
  if (outcome === "error") return { look: "failed", glyph: "!", word, note };
  return { look: "ended", glyph: GLYPHS[outcome ?? ""] ?? "–", word, note };
}

/** What a session is called, most telling first. @param {Session} s */
export function sessionName(s) {
  return s.name ?? s.title ?? s.session_id ?? s.id;
}

/** The first line that says something: what follows in an error is where it happened. @param {string} text */
export function firstLine(text) {
  return text.split("\n").find((line) => line.trim()) ?? text;
}

/** The text beside the name: the title, unless it already is the name. @param {Session} s */
export function sessionTitle(s) {
  return s.name ? s.title ?? "" : "";
}

/** @param {Session} s */
export function tokens(s) {
  if (s.input_tokens === null && s.output_tokens === null) return null;
  return (s.input_tokens ?? 0) + (s.output_tokens ?? 0);
}

/** Nanoseconds of silence after an end, in which what its counts tell of may still be on its way. */
const SETTLED = 10e9;

/** What is said of a reason whose name does not say it. */
const REASONS = /** @type {Record<string, string>} */ ({
  process_died: "unknown, the process died",
  not_received: "sent by nobody so far, or lost on the way",
  missing_parents: "named as parents",
  dropped: "given up by the sender",
});

/**
 * How many of the missing spans may still come: those that nobody gave up, soon after the end.
 *
 * @param {Session} s
 * @param {Record<string, number>} losses
 * @param {() => number} now - the server's time in ms, asked only where it matters
 */
function onTheirWay(s, losses, now) {
  const open = s.state === "ended" ? losses.not_received ?? 0 : 0;
  return open && now() * 1e6 - Number(s.last_seen_at) < SETTLED ? open : 0;
}

/**
 * Whether all spans are here, in words.
 *
 * @param {Session} s
 * @param {Record<string, number>} losses
 * @param {() => number} now - the server's time in ms
 */
export function completeness(s, losses, now = Date.now) {
  if (s.missing_spans === null) {
    return { look: "untold", word: "Completeness unknown", note: `${count(s.spans)} spans here` };
  }
  if (s.missing_spans === 0 && s.state === "ended") {
    return { look: "complete", word: "Complete", note: `${count(s.spans)} of ${count(s.spans)} spans` };
  }
  if (s.missing_spans === 0 && (s.state === "lost" || s.state === "stale")) {
    // What ended after the last heartbeat and never arrived is in nobody's count.
    return {
      look: "untold",
      word: "None known missing",
      note: `${count(s.spans)} spans up to the last sign of life`,
    };
  }
  if (s.missing_spans === 0) {
    return { look: "so-far", word: "None missing so far", note: `${count(s.spans)} spans` };
  }
  const coming = onTheirWay(s, losses, now);
  const missing = s.missing_spans - coming;
  if (missing <= 0) {
    return { look: "so-far", word: `${plural(coming, "span")} on the way`, note: `${count(s.spans)} here` };
  }
  const why = Object.entries(losses)
    .filter(([reason, n]) => n > 0 && !(coming && reason === "not_received"))
    .map(([reason, n]) => `${REASONS[reason] ?? reason.replaceAll("_", " ")}: ${count(n)}`)
    .join(", ");
  // What ended after the last sign of life is in nobody's count.
  const least = s.state === "lost" || s.state === "stale" ? "At least " : "";
  return {
    look: "missing",
    word: `${least}${plural(missing, "span")} missing`,
    note: why || "reason unknown",
  };
}

/** Singular or plural. @param {number} n @param {string} word */
export function plural(n, word) {
  return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}

// C0 but for tab and line ends, DEL, C1, and the marks that turn or hide text.
// deno-lint-ignore no-control-regex -- control characters are what this is about
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/**
 * Text with its control characters made visible: nobody's output may hide or reorder what stands beside it.
 *
 * @param {string} text
 */
export function visible(text) {
  return text.replace(/\r\n/g, "\n").replace(HIDDEN, (c) => {
    const code = c.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "\u2421";
    return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  });
}

/**
 * Any value of a span as the text a person reads; JSON inside a string is laid out.
 *
 * @param {unknown} value
 */
export function pretty(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return layout(text) ?? text;
}

/**
 * One attribute value of OTLP JSON: its type's name and its text.
 *
 * @param {AnyValue | undefined} value
 * @returns {{ type: string, text: string }}
 */
export function anyValue(value) {
  if (!value) return { type: "empty", text: "" };
  if (value.stringValue !== undefined) return { type: "string", text: pretty(value.stringValue) };
  if (value.boolValue !== undefined) return { type: "bool", text: String(value.boolValue) };
  if (value.intValue !== undefined) return { type: "int", text: String(value.intValue) };
  if (value.doubleValue !== undefined) return { type: "double", text: String(value.doubleValue) };
  if (value.bytesValue !== undefined) return { type: "bytes", text: value.bytesValue };
  if (value.arrayValue) return { type: "array", text: pretty(plain(value)) };
  if (value.kvlistValue) return { type: "map", text: pretty(plain(value)) };
  return { type: "empty", text: "" };
}

/** @param {AnyValue | undefined} value @returns {unknown} */
function plain(value) {
  if (value?.arrayValue) return (value.arrayValue.values ?? []).map(plain);
  if (value?.kvlistValue) {
    return Object.fromEntries((value.kvlistValue.values ?? []).map((kv) => [kv.key, plain(kv.value)]));
  }
  return value?.stringValue ?? value?.boolValue ?? value?.intValue ?? value?.doubleValue ??
    value?.bytesValue ?? null;
}

/** The text of one attribute, or null. @param {KeyValue[] | undefined} attributes @param {string} key */
export function attribute(attributes, key) {
  const found = attributes?.find((kv) => kv.key === key);
  return found ? anyValue(found.value).text : null;
}

/** An http(s) address, or null: nothing else ever becomes a link. @param {string} text */
export function link(text) {
  return /^https?:\/\/[^\s]+$/i.test(text) && URL.canParse(text) ? text : null;
}

/**
 * Round times for an axis: at most `most` ticks over `span` ns.
 *
 * @param {number} span
 * @param {number} most
 */
export function tickStep(span, most) {
  const least = span / Math.max(1, most);
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500].flatMap((s) => [s, s * 1e3, s * 1e6]).sort((a, b) =>
    a - b
  );
  const rounds = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  for (const step of steps) if (step >= least) return step;
  for (const s of rounds) if (s * 1e9 >= least) return s * 1e9;
  return Math.ceil(least / 86400e9) * 86400e9;
}

/**
 * How long a session took, or has taken so far: an open one that is heard lasts until now, one that is
 * not heard until its last sign of life. In ns. Of an inferred one that is only a bound: its arrival is
 * known, its end is not.
 *
 * @param {Session} s
 * @param {number} now Unix ms, by the server's clock
 */
export function sessionDuration(s, now) {
  if (s.duration !== null) return Number(s.duration);
  if (isGrowing(s)) return Math.max(0, now * 1e6 - Number(s.started_at));
  return nsBetween(s.started_at, s.ended_at ?? s.last_alive_at);
}

/** Whether a session lasts until now. @param {Session} s */
export function isGrowing(s) {
  return s.duration === null && !s.inferred && (s.state === "running" || s.state === "waiting");
}

/** Whether the duration is only known to be at most so long. @param {Session} s */
export function isBound(s) {
  return s.duration === null && s.inferred;
}

/** Order of two ns strings. @param {Ns} a @param {Ns} b */
export function compareNs(a, b) {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}
