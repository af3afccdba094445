/**
 * The life of a session: the strip of its states over time, and the same as a list with its runs.
 *
 * @import { SessionDetail, TimelineEntry } from "./types.d.ts"
 */
import { html } from "../vendor/preact-11.2.0.js";
import { clock, date, duration, endedState, lexicon, plural, stateLook, toMs, when } from "./format.js";
import { Ago, Duration, Glyph, Named, Text, Time, Unknown } from "./parts.js";
import { connection, now } from "./state.js";

/** What a run that was heard again, or resumed, does then is run. */
const STRETCH = lexicon({ revived: "running", resumed: "running" });

/**
 * Stretches of one state each, from the first entry to `until`; of several runs the latest word counts.
 *
 * @param {TimelineEntry[]} timeline
 * @param {{ start: number, until: number, state: string }} session ms
 * @returns {{ from: number, to: number, state: string, detail: string | null }[]}
 */
export function stretches(timeline, { start, until, state }) {
  const entries = timeline.map((entry) => ({ ...entry, ms: toMs(entry.at) })).sort((a, b) => a.ms - b.ms);
  if (!entries.length || entries[0].ms > start) {
    // Nothing tells what it was before: where no event was ever seen, its spans alone say that it was at work.
    const first = entries.length ? entries[0].ms : until;
    const was = state === "ended" || state === "idle" ? "ended" : "running";
    entries.unshift({
      at: "",
      root_id: "",
      ms: start,
      state: entries.length ? "running" : was,
      detail: null,
    });
    if (!timeline.length) {
      return first > start ? [{ from: start, to: first, state: "inferred", detail: null }] : [];
    }
  }
  const parts = entries.map((entry, i) => ({
    from: entry.ms,
    to: entries[i + 1]?.ms ?? Math.max(until, entry.ms),
    state: STRETCH[entry.state] ?? entry.state,
    detail: entry.detail,
  }));
  return parts.filter((part) => part.to > part.from);
}

/**
 * The same with the time between the last sign of life and when that was noticed as a stretch of its own: nobody
 * knows what the session did then.
 *
 * @param {ReturnType<typeof stretches>} parts
 * @param {number} heard ms
 */
export function withSilence(parts, heard) {
  const at = parts.findLastIndex((part) => part.state !== "stale" && part.state !== "lost");
  const before = parts[at];
  if (!before || at === parts.length - 1 || heard >= before.to) return parts;
  const from = Math.max(heard, before.from);
  const unheard = { from, to: before.to, state: "unheard", detail: null };
  const known = from > before.from ? [{ ...before, to: from }] : [];
  return [...parts.slice(0, at), ...known, unheard, ...parts.slice(at + 1)];
}

/** Until when the strip goes: a heard session until now. @param {SessionDetail} s @param {number} at */
function untilMs(s, at) {
  if (s.state === "ended") return toMs(s.ended_at ?? s.last_alive_at);
  return s.state === "idle" ? toMs(s.last_alive_at) : at;
}

/** The strip over the page. @param {{ session: SessionDetail }} props */
export function Strip({ session: s }) {
  if (!s.timeline.length && (s.inferred || s.duration === null)) {
    return html`<p class="axis">Inferred from spans: no life cycle event was seen, so nothing told whether it ended.</p>`;
  }
  const start = toMs(s.started_at);
  const until = untilMs(s, s.state === "ended" || s.state === "idle" ? 0 : now.value);
  const heard = s.state === "stale" || s.state === "lost" ? toMs(s.last_alive_at) : null;
  const all = stretches(s.timeline, { start, until, state: s.state });
  const parts = heard === null ? all : withSilence(all, heard);
  const whole = until - start;
  if (whole <= 0 || !parts.length) return null;
  const spoken = parts.map((part) => `${wordOf(part.state)} ${duration((part.to - part.from) * 1e6)}`).join(
    ", ",
  );
  const told = parts.filter((part) => ["waiting", "lost", "stale"].includes(part.state)).at(-1);
  const placeOf = (/** @type {number} */ ms) => Math.max(10, Math.min(66, ((ms - start) / whole) * 100));
  const end = s.state === "ended" || s.state === "idle"
    ? clock(until)
    : connection.value.state === "cut"
    ? `as of ${clock(until)}`
    : "now";
  return html`
    <div class="strip" role="img" aria-label=${`States over time: ${spoken}`}>${parts.map((part) =>
      html`<i class=${lookOf(part.state)} title=${`${wordOf(part.state)}${
        part.detail ? ` (${part.detail})` : ""
      }, ${clock(part.from)} to ${clock(part.to)}, ${duration((part.to - part.from) * 1e6)}`} style=${{
        inlineSize: `${((part.to - part.from) / whole) * 100}%`,
      }}></i>`
    )}</div>
    <div class="axis" aria-hidden="true"><span>${when(start, now.peek())}</span>${told && parts.length > 1
      ? html`<span class="told" style=${{ insetInlineStart: `${placeOf(told.from)}%` }}>${
        sentenceOf(told, heard)
      }</span>`
      : null}<span>${end}</span></div>
  `;
}

/** What stretches are called that are no state of a session. */
const WORDS = lexicon({ inferred: "Inferred from spans", unheard: "Not heard any more" });

/** @param {string} state */
function wordOf(state) {
  return WORDS[state] ?? stateLook(state).word;
}

/** The class that colours a stretch. @param {string} state */
function lookOf(state) {
  if (state === "inferred") return state;
  return stateLook(state === "unheard" ? "stale" : state).look;
}

/** What the axis says of a stretch; of a silence that goes on both times: it is called lost only after its lease. @param {{ from: number, to: number, state: string }} part @param {number | null} heard ms */
export function sentenceOf({ from, to, state }, heard) {
  const word = wordOf(state).toLowerCase();
  return heard !== null && (state === "stale" || state === "lost")
    ? `last heard ${clock(heard)}, ${word} since ${clock(from)}`
    : `${word} ${duration((to - from) * 1e6)} from ${clock(from)}`;
}

/** The tab "Timeline": every change, newest last, then the runs. @param {{ session: SessionDetail }} props */
export function TimelineView({ session: s }) {
  return html`
    <div class="pad" tabindex="0" aria-label="Timeline">
      <h3>What happened</h3>
      ${s.timeline.length
        ? html`<ol class="changes">${
          s.timeline.map((entry, i) => {
            const before = i ? toMs(entry.at) - toMs(s.timeline[i - 1].at) : null;
            return html`<li><${Time} ns=${entry.at} /><${Entry} entry=${entry} />
            <span class="muted">${
              before === null ? date(toMs(entry.at)) : `+${duration(before * 1e6)}`
            }</span>
            ${
              s.runs.length > 1
                ? html`<span class="mono muted">run <${Text} value=${entry.root_id.slice(0, 8)} /></span>`
                : null
            }</li>`;
          })
        }</ol>`
        : html`<p class="muted">No life cycle event was seen: this session is known by its spans alone. What it is doing
          now, and whether it ended, nobody told.</p>`}
      ${s.runs.length
        ? html`
          <h3>${plural(s.runs.length, "run")}</h3>
          <div class="scroll-x">
            <${Runs} session=${s} />
          </div>
        `
        : null}
    </div>
  `;
}

/** @param {{ entry: TimelineEntry }} props */
function Entry({ entry }) {
  if (entry.state !== "ended") return html`<${Named} name=${entry.state} note=${entry.detail ?? ""} />`;
  const outcomes = lexicon({ completed: "ok", error: "error", timeout: "error" });
  const { look, glyph, word } = endedState(outcomes[entry.detail ?? ""] ?? null, entry.detail);
  return html`<${Glyph} look=${look} glyph=${glyph} word=${word} />`;
}

/** @param {{ session: SessionDetail }} props */
function Runs({ session: s }) {
  return html`
    <table class="plain-table">
      <thead>
        <tr>
          <th scope="col">Run</th>
          <th scope="col">State</th>
          <th scope="col">Started</th>
          <th scope="col">Last heard</th>
          <th scope="col">Heartbeat, lease</th>
          <th scope="col" class="num">Open spans</th>
          <th scope="col">Process</th>
        </tr>
      </thead>
      <tbody>${s.runs.map((run) => {
        const ended = run.phase === "ended";
        const state = ended || run.signal === "live" || run.signal === "none" ? run.phase : run.signal;
        const look = ended
          ? endedState(run.outcome, run.end_reason)
          : { ...stateLook(state), note: run.waiting_for ?? "" };
        return html`
          <tr>
            <td class="mono"><${Text} value=${run.root_id.slice(0, 8)} />${run.resumed
              ? html`${" "}<span class="tag">resumed</span>`
              : null}${run.child ? html`${" "}<span class="tag">child process</span>` : null}</td>
            <td>
              <${Glyph} ...${look} />
            </td>
            <td>${run.started_at ? html`<${Time} ns=${run.started_at} />` : html`<${Unknown} />`}</td>
            <td>${run.last_heard_at ? html`<${Ago} ns=${run.last_heard_at} />` : html`<${Unknown} />`}</td>
            <td><${Duration} ns=${Number(run.interval)} />, <${Duration} ns=${Number(run.lease)} /></td>
            <td class="num">${run.open_spans.length}</td>
            <td class="mono muted">
              <${Text} value=${run.process || "unknown"} />
            </td>
          </tr>
        `;
      })}</tbody>
    </table>
  `;
}
