/**
 * Search over the text of all sessions: hits as they are found, and how far the search came.
 *
 * @import { Problem, SearchHit, SearchLine, SearchProgress } from "./types.d.ts"
 */
import { batch, html, signal, useEffect } from "../vendor/preact-11.2.0.js";
import { lines, problemFrom, url } from "./api.js";
import { isOfFilter } from "./find.js";
import { visible } from "./format.js";
import { useKeys } from "./keys.js";
import { stream } from "./live.js";
import { Ago, Failure, Text } from "./parts.js";
import { query, sessionHref, spanHref } from "./state.js";

const HITS = 50; // a reading
const RETRIES = 5; // of a server that says it is searching enough

/** The words that are searched for; what is shown belongs to them. */
const words = signal("");
const hits = signal(/** @type {SearchHit[]} */ ([]));
const progress = signal(/** @type {SearchProgress | null} */ (null));
const next = signal(/** @type {string | null} */ (null));
const problem = signal(/** @type {Problem | null} */ (null));
const running = signal(false);
let abort = new AbortController();

/** Search from the newest on. @param {string} q */
function begin(q) {
  stop();
  batch(() => {
    words.value = q;
    hits.value = [];
    next.value = null;
    problem.value = null;
    progress.value = null;
  });
  if (q) void read(q, null);
}

function stop() {
  abort.abort();
  running.value = false;
}

/** @param {string} q @param {string | null} before */
async function read(q, before) {
  const mine = abort = new AbortController();
  running.value = true;
  problem.value = null;
  try {
    await tell(q, before, mine.signal);
    isOfFilter(null, q);
  } catch (error) {
    const found = problemFrom(error);
    if (!found || abort !== mine) return;
    problem.value = isOfFilter(found, q) ? null : found;
  }
  if (abort === mine) running.value = false;
}

/** Take line after line; a busy server is asked again when it says so. @param {string} q @param {string | null} before @param {AbortSignal} signal */
async function tell(q, before, signal) {
  const address = url(["search", "stream"], { q, before, limit: HITS });
  for (let left = RETRIES;; left--) {
    try {
      for await (const line of /** @type {AsyncGenerator<SearchLine>} */ (lines(address, signal))) take(line);
      return;
    } catch (error) {
      const wait = problemFrom(error)?.retryAfter;
      if (!wait || !left) throw error;
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
      if (signal.aborted) throw new DOMException("", "AbortError");
    }
  }
}

/** @param {SearchLine} line */
function take(line) {
  if (line.hit) hits.value = [...hits.peek(), line.hit];
  if (line.progress) progress.value = line.progress;
  if (line.end) {
    next.value = line.end.next;
    stream.follow(null, line.end.event_id);
  }
}

/** The page at /search. */
export function SearchPage() {
  const q = (query.value.get("q") ?? "").trim();
  useEffect(() => {
    document.title = q ? `${q} - otel-sessions` : "Search - otel-sessions";
    stream.follow(null, null);
    if (q !== words.peek() || (q && !progress.peek())) begin(q);
  }, [q]);
  useEffect(() => stop, []);
  useKeys({ next: () => step(1), previous: () => step(-1) });
  const found = words.value === q ? hits.value : [];
  const failed = problem.value;
  return html`
    <main class="narrow">
      <h1 class="visually-hidden">Search</h1>
      ${q ? html`<${Progress} />` : html`<${Invitation} />`}
      ${onlyConditions(failed)
        ? html`<${OnlyConditions} q=${q} />`
        : failed
        ? html`<${Failure} problem=${failed} retry=${() => void read(q, next.peek())} />`
        : null}
      <ol class="hits">${found.map((hit, no) =>
        html`<${Hit} key=${`${no} ${hit.trace_id}${hit.span_id}`} hit=${hit} />`
      )}</ol>
      ${q && !found.length && !running.value && !failed && progress.value?.share === 1
        ? html`<${Nothing} q=${q} />`
        : null}
      ${next.value && !running.value
        ? html`<div class="more"><button class="button" onClick=${() =>
          void read(q, next.peek())}>Search older ones</button></div>`
        : null}
    </main>
  `;
}

/** @param {number} by */
function step(by) {
  const links = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".hits a.open")]);
  const at = links.findIndex((link) => link === document.activeElement);
  const to = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  links[Math.max(0, Math.min(links.length - 1, to))]?.focus();
}

/** Whether a search had conditions alone: a wrong one has a position. @param {Problem | null} problem */
function onlyConditions(problem) {
  return problem?.status === 400 && problem.parameter === "q" && problem.position === undefined;
}

/** Nothing is wrong with it, but it is a filter of the list. @param {{ q: string }} props */
function OnlyConditions({ q }) {
  return html`
    <div class="card empty">
      <h2>That says which sessions, not what to find in them</h2>
      <p><a class="link" href=${`/sessions?${new URLSearchParams({
        q,
      })}`}>List these sessions</a>, or add a word:
        <code class="mono"><${Text} value=${`${q} refund`} /></code></p>
    </div>
  `;
}

function Invitation() {
  return html`
    <div class="card empty">
      <h2>Search every span and message</h2>
      <p>Any words, in any script: what was asked, answered, called; names and attributes. <kbd>/</kbd> puts you into the box.</p>
      <p>With conditions of their sessions: <code class="mono">tool:search "flight to"</code></p>
    </div>
  `;
}

/** How far the search came, in a line that is there from the first moment on. */
function Progress() {
  const at = progress.value;
  const share = at?.share ?? 0;
  const percent = Math.floor(share * 100);
  const count = hits.value.length;
  const said = count === 1 ? "1 hit" : `${count} hits`;
  return html`
    <div class="progress">
      <i class="meter" role="progressbar" aria-label="Searched" aria-valuemin="0" aria-valuemax="100"
        aria-valuenow=${percent}><i style=${{ width: `${share * 100}%` }}></i></i>
      <span role="status">${said}${share < 1
        ? ` · ${percent} % searched`
        : at
        ? " · everything searched"
        : ""}</span>
      ${at?.reached && share < 1
        ? html`<span class="muted">back to <${Ago} ns=${at.reached} /></span>`
        : null}
      ${running.value ? html`<button class="button" onClick=${stop}>Stop</button>` : null}
    </div>
  `;
}

/** @param {{ q: string }} props */
function Nothing({ q }) {
  return html`
    <div class="card empty">
      <h2>Nothing contains “<${Text} value=${q} />”</h2>
      <p>Every word has to occur in one span or log, in upper or lower case; quotes keep words together.</p>
    </div>
  `;
}

/** @param {{ hit: SearchHit }} props */
function Hit({ hit }) {
  const isName = hit.field === "name" || hit.field === "event_name";
  const place = hit.field.replace(/^(attributes|events\.attributes|body)\./, "");
  // A log of no span has no page of its own: its session has it in the transcript.
  const href = /^0*$/.test(hit.span_id) ? sessionHref(hit.session) : spanHref(hit.trace_id, hit.span_id);
  return html`
    <li class="card hit">
      <a class="open" href=${href}><b>${isName
        ? html`<${Marked} hit=${hit} />`
        : html`<${Text} value=${hit.name || "unnamed span"} />`}</b></a>
      <span class="muted">in <a class="link" href=${sessionHref(hit.session, {
        span: hit.span_id,
        detail: "1",
      })}><${Text}
        value=${hit.session_name ?? hit.session} /></a> · <${Ago} ns=${hit.start} /></span>
      ${isName ? null : html`
        <p class="mono"><span class="tag"><${Text} value=${place} /></span> <${Marked} hit=${hit} /></p>
      `}
    </li>
  `;
}

/** The snippet with its matches marked, as text nodes. @param {{ hit: SearchHit }} props */
function Marked({ hit }) {
  const characters = [...hit.snippet];
  const parts = [];
  let from = 0;
  for (const [begin, end] of hit.marks) {
    parts.push(visible(characters.slice(from, begin).join("")));
    parts.push(html`<mark>${visible(characters.slice(begin, end).join(""))}</mark>`);
    from = end;
  }
  parts.push(visible(characters.slice(from).join("")));
  return html`<bdi>${parts}</bdi>`;
}
