/**
 * Small parts that every page is made of. Whatever came from outside passes through `Text`.
 *
 * @import { Child } from "../vendor/preact-11.2.0.js"
 * @import { Ns, Problem, Session } from "./types.d.ts"
 */
import { html, useEffect, useRef, useSignal } from "../vendor/preact-11.2.0.js";
import { get, problemFrom } from "./api.js";
import {
  age,
  clock,
  count,
  date,
  duration,
  kindClass,
  shownState,
  stateLook,
  toMs,
  UNKNOWN,
  utc,
  visible,
} from "./format.js";
import { connection, epoch, now } from "./state.js";

/** Text of unknown origin: a text node, its direction isolated, its control characters visible. @param {{ value: string }} props */
export function Text({ value }) {
  return html`<bdi>${visible(value)}</bdi>`;
}

/** A count, or "unknown" in grey. @param {{ value: number | null | undefined }} props */
export function Count({ value }) {
  return value === null || value === undefined ? html`<${Unknown} />` : count(value);
}

/** What nobody told is never shown as 0. */
export function Unknown() {
  return html`<span class="unknown">${UNKNOWN}</span>`;
}

/** Local time; UTC to the nanosecond on hover. @param {{ ns: Ns, text?: string }} props */
export function Time({ ns, text }) {
  const ms = toMs(ns);
  return html`<time dateTime=${new Date(ms).toISOString()} title=${`${date(ms)}, ${clock(ms)}\n${utc(ns)}`}>${
    text ?? clock(ms)
  }</time>`;
}

/** "12 s ago", kept right as time goes by. @param {{ ns: Ns }} props */
export function Ago({ ns }) {
  const past = age(now.value - toMs(ns));
  return html`<${Time} ns=${ns} text=${past === "now" ? "now" : `${past} ago`} />`;
}

/** A length of time, its ns on hover. @param {{ ns: number | null }} props */
export function Duration({ ns }) {
  if (ns === null) return html`<${Unknown} />`;
  return html`<span title=${`${count(Math.round(ns))} ns`}>${duration(ns)}</span>`;
}

/** A session's state: glyph, word and colour, then why or how long. While the stream is cut: as of when. @param {{ session: Session, terse?: boolean }} props */
export function State({ session, terse }) {
  const cut = connection.value.state === "cut" && session.state !== "ended";
  // An ended session has no age in its state: it need not be drawn again each second.
  const { look, glyph, word, note } = shownState(session, session.state === "ended" ? 0 : now.value);
  const small = cut ? `as of ${clock(connection.value.since).slice(0, 5)}` : note;
  return html`<${Glyph} look=${look} glyph=${glyph} word=${word} note=${terse ? "" : small} />`;
}

/** @param {{ look: string, glyph: string, word: string, note?: string }} props */
export function Glyph({ look, glyph, word, note }) {
  return html`
    <span
      class=${`state ${look}`}><i aria-hidden="true">${glyph}</i><span><${Text} value=${word} />${note
        ? html`${" "}<small><${Text} value=${note} /></small>`
        : null}</span></span>
  `;
}

/** The state of a task, or one entry of a timeline. @param {{ name: string, note?: string }} props */
export function Named({ name, note }) {
  return html`<${Glyph} ...${stateLook(name)} note=${note} />`;
}

/** The coloured square of a kind of work, with its word for who does not see colour. @param {{ category: string }} props */
export function Kind({ category }) {
  return html`<i class=${`k ${
    kindClass(category)
  }`} role="img" aria-label=${category} title=${category}></i>`;
}

/** What failed, what to do, and how to try again. @param {{ problem: Problem, retry?: () => void }} props */
export function Failure({ problem, retry }) {
  return html`
    <div class="failure" role="alert">
      <h2><i aria-hidden="true">!</i> <${Text} value=${problem.title} /></h2>
      ${problem.detail
        ? html`
          <p>
            <${Text} value=${problem.detail} />
          </p>
        `
        : null}
      ${problem.status === 0
        ? html`<p>Is <code>otel-sessions serve</code> running? What is shown of it elsewhere on this page may be old.</p>`
        : null}
      <p class="muted">${problem.status ? `Status ${problem.status}` : "No answer"}${problem.request_id
        ? html`, request <code><${Text} value=${problem.request_id} /></code>`
        : null}</p>
      ${retry ? html`<button class="button" onClick=${retry}>Try again</button>` : null}
    </div>
  `;
}

/** Copy a text; says so for a moment. @param {{ text: string, label?: string, children?: Child }} props */
export function Copy({ text, label = "Copy", children }) {
  const done = useSignal("");
  const copy = async () => {
    done.value = (await toClipboard(text)) ? "Copied" : "Select and copy by hand";
    setTimeout(() => (done.value = ""), 1500);
  };
  return html`<button class=${
    children ? "copy plain" : "copy button"
  } onClick=${copy} title=${label} aria-label=${label}>${done.value || children || "Copy"}</button>`;
}

/** @param {string} text @returns {Promise<boolean>} false where the browser does not allow it */
async function toClipboard(text) {
  if (!navigator.clipboard) return false; // plain http from another machine
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch (error) {
    if (error instanceof DOMException) return false;
    throw error;
  }
}

/** Grey lines in the place of what is being read. @param {{ lines?: number }} props */
export function Skeleton({ lines = 8 }) {
  return html`
    <div aria-busy="true">
      <p class="visually-hidden" role="status">Loading</p>
      <div class="skeleton" aria-hidden="true">${Array.from({ length: lines }, () => html`<i></i>`)}</div>
    </div>
  `;
}

/**
 * Read one answer, and again when the address changes or the stream had to start afresh; what was
 * there stays until the new is.
 *
 * @template T
 * @param {string | null} address null reads nothing
 * @param {(answer: T) => void} [taken]
 */
export function useAnswer(address, taken) {
  const answer = useSignal(/** @type {{ of: string, data: T } | null} */ (null));
  const problem = useSignal(/** @type {Problem | null} */ (null));
  const loading = useSignal(address !== null);
  const attempt = useSignal(0);
  const take = useRef(taken);
  take.current = taken;
  useEffect(() => {
    if (address === null) return;
    const abort = new AbortController();
    loading.value = true;
    get(address, abort.signal).then((data) => {
      answer.value = { of: address, data: /** @type {T} */ (data) };
      problem.value = null;
      loading.value = false;
      take.current?.(/** @type {T} */ (data));
    }).catch((error) => {
      const found = problemFrom(error);
      if (!found) return;
      problem.value = found;
      loading.value = false;
    });
    return () => abort.abort();
  }, [address, epoch.value, attempt.value]);
  return {
    data: answer.value?.data ?? null,
    stale: loading.value && answer.value?.of !== address,
    problem: problem.value,
    loading: loading.value,
    retry: () => void attempt.value++,
  };
}
