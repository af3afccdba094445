/**
 * The list of sessions: live, filtered, one line each.
 *
 * @import { Problem, Session, SessionList, Status } from "./types.d.ts"
 */
import { computed, html, signal, useEffect, useRef } from "../vendor/preact-11.2.0.js";
import { get, problemFrom, url } from "./api.js";
import { lines, namesOf } from "./bare.js";
import {
  compact,
  cost,
  count,
  duration,
  firstLine,
  isBound,
  isGrowing,
  plural,
  sessionDuration,
  sessionName,
  sessionTitle,
  STATE_ORDER,
  stateLook,
  tokens,
} from "./format.js";
import { FilterFailure, hasFilterFailure, isOfFilter } from "./find.js";
import { useKeys } from "./keys.js";
import { listen, setServerTime, stream } from "./live.js";
import { adjust, restoreScroll, restoreScrollAfterReload } from "./nav.js";
import { Ago, Copy, Count, Failure, Glyph, Skeleton, State, Text, Unknown, useAnswer } from "./parts.js";
import { book, epoch, now, place, query, sessionHref } from "./state.js";

const PAGE = 100; // sessions a reading
const BOUND = "From the first span to the last arrival; nothing told when it ended";
const REFRESH_DELAY = 1000; // ms; counts, and rows that only the server can match, are read at most so often

/** The filter of the list shown: null until the first answer. @type {string | null} */
let loadedKey = null;
const problem = signal(/** @type {Problem | null} */ (null));
const loading = signal(false);
const ready = signal(false);
/** @type {ReturnType<typeof setTimeout> | undefined} */
let refreshTimer;

const states = computed(() => (query.value.get("state") ?? "").split(",").filter(Boolean));
const text = computed(() => query.value.get("q") ?? "");
const sort = computed(() => query.value.get("sort") ?? "");

const FAILED = "outcome:error"; // as the filter's language has it
const failedOnly = computed(() => text.value.split(/\s+/).includes(FAILED));

/** Keep the list right wherever the reader is. */
export function start() {
  listen({
    session: (s) => loadedKey !== null && hear(s),
    gone: (id) => {
      book.remove(id);
      refreshLater();
    },
    unmatched: (id) => {
      if (loadedKey === null) return;
      book.unmatch(id, isQuiet());
      refreshLater();
    },
    opened: refreshLater,
  });
}

/** @param {Session} s */
function hear(s) {
  const before = book.rows.get(s.id)?.peek().state;
  // A new session's place in an order that is not by start only the server knows: the next reading finds it.
  const fate = before === undefined && loadedSort ? "elsewhere" : book.put(s, isQuiet());
  if (fate !== "updated" || before !== s.state) refreshLater();
}

/** Nobody has the list under the pointer, in focus or scrolled: a new row may come in at the top. */
function isQuiet() {
  if (place.peek().page !== "sessions") return true;
  const list = document.querySelector(".list");
  return !list || (!list.matches(":hover") && !list.contains(document.activeElement) && scrollY < 8);
}

function refreshLater() {
  if (loadedKey === null) return;
  refreshTimer ??= setTimeout(refresh, REFRESH_DELAY);
}

async function refresh() {
  refreshTimer = undefined;
  const of = loadedKey;
  try {
    const answer = /** @type {SessionList} */ (await get(listUrl(null)));
    if (of !== loadedKey) return;
    for (const s of answer.sessions) book.put(s, isQuiet());
    book.counts.value = answer.counts; // after the rows, whose changes it knows
  } catch (error) {
    problemFrom(error); // the stream's banner tells of a server that is away
  }
}

let loadedStates = "";
let loadedText = "";
let loadedSort = "";

/** @param {string | null} after */
function listUrl(after) {
  return url(["sessions"], { state: loadedStates, q: loadedText, sort: loadedSort, limit: PAGE, after });
}

/** @param {AbortSignal} signal */
async function load(signal) {
  const [chosen, words, order] = [states.peek().join(), text.peek(), sort.peek()];
  const key = `${chosen}|${words}|${order}|${epoch.peek()}`;
  if (key === loadedKey && !(book.ranked && book.held.peek().length)) {
    problem.value = null;
    isOfFilter(null, words);
    stream.follow(null, null);
    return book.showHeld();
  }
  loading.value = true;
  const address = url(["sessions"], { state: chosen, q: words, sort: order, limit: PAGE });
  try {
    const answer = /** @type {SessionList} */ (await get(address, signal));
    [loadedKey, loadedStates, loadedText, loadedSort] = [key, chosen, words, order];
    problem.value = null;
    isOfFilter(null, words);
    setServerTime(answer.now);
    book.load(answer, new Set(states.peek()), order !== "");
    ready.value = true;
    stream.narrow(words, answer.event_id);
    stream.follow(null, answer.event_id);
    requestAnimationFrame(restoreScrollAfterReload);
    await lookFurther(signal);
  } catch (error) {
    const found = problemFrom(error);
    if (!found) return;
    problem.value = isOfFilter(found, words, !ready.peek()) ? null : found;
  }
  loading.value = false;
}

/** A filter that fits few is answered with what was found in half a second: ask on until the page is full. @param {AbortSignal} signal */
async function lookFurther(signal) {
  while (loadedText && book.next.peek() && book.order.peek().length < PAGE && !signal.aborted) {
    book.append(await get(listUrl(book.next.peek()), signal));
  }
}

async function loadMore() {
  loading.value = true;
  try {
    book.append(await get(listUrl(book.next.peek())));
    problem.value = null;
  } catch (error) {
    problem.value = problemFrom(error);
  }
  loading.value = false;
}

/** The page at /sessions. */
export function SessionsPage() {
  const filter = `${states.value.join()}|${text.value}|${sort.value}|${epoch.value}`;
  const attempt = useRef(() => {});
  useEffect(() => {
    document.title = "Sessions - otel-sessions";
    const abort = new AbortController();
    attempt.current = () => void load(abort.signal);
    attempt.current();
    requestAnimationFrame(restoreScroll);
    return () => abort.abort();
  }, [filter]);
  useKeys({ next: () => step(1), previous: () => step(-1), news: () => attempt.current() });
  const filtered = states.value.length > 0 || text.value !== "";
  if (!ready.value) {
    if (hasFilterFailure()) {
      return html`
        <main>
          <${FilterFailure} />
        </main>
      `;
    }
    return problem.value
      ? html`
        <main>
          <${Failure} problem=${problem.value} retry=${attempt.current} />
        </main>
      `
      : html`
        <main>
          <${Skeleton} />
        </main>
      `;
  }
  const empty = book.order.value.length === 0 && book.held.value.length === 0;
  const nothingYet = empty && !filtered && total() === 0;
  return html`
    <main>
      <h1 class="visually-hidden">Sessions</h1>
      ${nothingYet ? null : html`<${Chips} news=${() => attempt.current()} />`}
      ${problem.value ? html`<${Failure} problem=${problem.value} retry=${attempt.current} />` : null}
      ${nothingYet
        ? html`<${Welcome} />`
        : empty && !problem.value
        ? book.next.value && loading.value ? html`<${Looking} />` : html`<${NoHits} />`
        : html`<${List} />`}
    </main>
  `;
}

/** @param {number} by */
function step(by) {
  const links = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".list a.open")]);
  const at = links.findIndex((link) => link === document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
}

function total() {
  const counts = book.counts.value;
  return counts ? Object.values(counts).reduce((sum, n) => sum + n, 0) : 0;
}

/** @param {{ news: () => void }} props */
function Chips({ news }) {
  const counts = book.counts.value;
  const chosen = new Set(states.value);
  const held = book.held.value.length;
  /** @param {string} state @param {MouseEvent} event */
  const choose = (state, event) => {
    const next = event.shiftKey
      ? new Set(chosen)
      : new Set(chosen.has(state) && chosen.size === 1 ? [state] : []);
    if (next.has(state)) next.delete(state);
    else next.add(state);
    adjust({ state: [...next].join() }, { push: true });
  };
  return html`
    <div class="chips" role="group" aria-label="States">
      <button class="chip" aria-pressed=${chosen.size === 0 && !failedOnly.value} onClick=${() =>
        adjust({ state: null, q: withoutFailed().join(" ") }, { push: true })}>
        All <b>${counts ? count(total()) : ""}</b></button>
      ${STATE_ORDER.map((state) =>
        html`
          <button class=${`chip ${counts?.[state] ? "" : "none"}`} aria-pressed=${chosen.has(state)}
            title="Shift adds to the choice" onClick=${(/** @type {MouseEvent} */ e) => choose(state, e)}>
            <${Glyph} ...${stateLook(state)} /> <b>${counts ? count(counts[state]) : ""}</b></button>
        `
      )}
      <button class="chip" aria-pressed=${failedOnly.value} onClick=${chooseFailed}
        title="Sessions whose outcome is an error">
        <${Glyph} ...${stateLook("failed")} /></button>
      <span class="news" aria-live="polite">${held
        ? html`<button class="chip new" onClick=${news}>${plural(held, "new session")} <kbd>r</kbd></button>`
        : null}</span>
    </div>
  `;
}

/** Failure is an outcome, not a state: it is one word of the filter's text. */
function chooseFailed() {
  const words = failedOnly.value ? withoutFailed() : [...withoutFailed(), FAILED];
  adjust({ q: words.join(" ") }, { push: true });
}

function withoutFailed() {
  return text.value.split(/\s+/).filter((word) => word && word !== FAILED);
}

/** Columns, and what the list can be sorted by. @type {{ word: string, sort?: string, look?: string }[]} */
const COLUMNS = [
  { word: "State" },
  { word: "Session", sort: "name" },
  { word: "Service", sort: "service", look: "wide" },
  { word: "Started", sort: "-started_at", look: "wide" },
  { word: "Duration" },
  { word: "Tokens", sort: "-input_tokens", look: "num" },
  { word: "Cost", sort: "-cost", look: "num wide" },
  { word: "Errors", sort: "-errors", look: "num" },
  { word: "Models", look: "wide models" },
];
const NEWEST_FIRST = "-started_at";

/** A column's head; a click sorts by it, another turns the order round. @param {{ word: string, sort?: string, look?: string }} props */
function Column({ word, sort: first, look }) {
  if (!first) return html`<th role="columnheader" scope="col" class=${look}>${word}</th>`;
  const now = sort.value || NEWEST_FIRST;
  const by = now.replace("-", "") === first.replace("-", "");
  const turned = now.startsWith("-") ? now.slice(1) : `-${now}`;
  const next = by ? turned : first;
  return html`
    <th role="columnheader" scope="col" class=${look}
      aria-sort=${by
        ? now.startsWith("-") ? "descending" : "ascending"
        : undefined}><button class="sort" title=${first === "-input_tokens"
        ? "Sort by tokens in"
        : `Sort by ${word.toLowerCase()}`}
        onClick=${() => adjust({ sort: next === NEWEST_FIRST ? null : next }, { push: true })}>${word}${by
          ? html`<i aria-hidden="true">${now.startsWith("-") ? "↓" : "↑"}</i>`
          : null}</button></th>
  `;
}

/** Lines of the list, as text: it differs only when a line does, whatever else is new in a session. */
const parted = computed(() => JSON.stringify(lines(book.order.value, (id) => book.row(id).value)));
const showsBare = computed(() => query.value.get("traces") === "all");

function List() {
  const ids = book.order.value;
  const parts = /** @type {string[][]} */ (JSON.parse(parted.value));
  const folded = parts.filter((line) => line.length > 1).length;
  const longest = longestOf(ids);
  return html`
    <div class=${`card list ${loading.value ? "dimmed" : ""}`}>
      <table role="table">
        <thead role="rowgroup"><tr role="row">${COLUMNS.map((column) =>
          html`<${Column} key=${column.word} ...${column} />`
        )}</tr></thead>
        <tbody role="rowgroup">${parts.flatMap((line) =>
          line.length > 1 && !showsBare.value
            ? [html`<${Bare} key=${line[0]} ids=${line} />`]
            : line.map((id) => html`<${Row} key=${id} id=${id} longest=${longest} />`)
        )}</tbody>
      </table>
      ${folded && showsBare.value
        ? html`<div class="more"><button class="button" onClick=${() =>
          adjust({ traces: null })}>Fold traces without an agent</button></div>`
        : null}
      ${book.next.value
        ? html`<div class="more"><button class="button" disabled=${loading.value} onClick=${loadMore}>
          ${
          loading.value ? "Reading…" : book.ranked ? "Show more sessions" : "Show older sessions"
        }</button></div>`
        : null}
    </div>
  `;
}

/** Neighbours that tell of no agent, in one line. @param {{ ids: string[] }} props */
function Bare({ ids }) {
  const sessions = ids.map((id) => book.row(id).value);
  const show = () => adjust({ traces: "all" }, { push: true });
  const service = sessions[0].service;
  const what = `${service ? ` of ${service}` : ""} that name no session and tell of no agent`;
  return html`
    <tr role="row" class="bare">
      <td role="cell" colspan=${COLUMNS.length}>
        <button class="plain" aria-expanded="false" onClick=${show}>
          <i aria-hidden="true">▸</i><b>${plural(ids.length, "trace")}</b><${Text} value=${what} />
          <small><${Text} value=${namesOf(sessions).join(", ")} /></small>
        </button>
      </td>
    </tr>
  `;
}

/** The longest known duration, which fills a bar. @param {string[]} ids */
function longestOf(ids) {
  return ids.map((id) => book.row(id).peek()).filter((s) => !isBound(s))
    .reduce((longest, s) => Math.max(longest, sessionDuration(s, now.peek())), 1);
}

/** @param {{ id: string, longest: number }} props */
function Row({ id, longest }) {
  const s = book.row(id).value;
  const gone = book.gone.value.has(id);
  const n = tokens(s);
  const title = sessionTitle(s);
  return html`
    <tr role="row" class=${gone || book.off.value.has(id) || !book.matches(s) ? "off" : ""}>
      <td role="cell" class="c-state">${gone
        ? html`<span class="muted">merged or removed</span>`
        : html`<${State} session=${s} />`}</td>
      <td role="cell"
        class="name"><a class="open" href=${sessionHref(id)}><b><${Text} value=${sessionName(
          s,
        )} /></b>${s.session_id === null
          ? html`<span class="tag kind" title="These spans bear no session id: their trace is the session">trace</span>`
          : null}${s.error
          ? html`<span class="title why" title=${s.error}><${Text} value=${firstLine(s.error)} /></span>`
          : null}${title ? html`<span class="title"><${Text} value=${title} /></span>` : null}</a></td>
      <td role="cell" class="wide">${s.service
        ? html`<span class="tag"><${Text} value=${s.service} /></span>`
        : html`<${Unknown} />`}</td>
      <td role="cell" class="wide muted">
        <${Ago} ns=${s.started_at} />
      </td>
      <td role="cell" class="c-dur">
        <${Lasting} session=${s} longest=${longest} />
      </td>
      <td role="cell" class="num" title=${n === null ? undefined : tokenTitle(s)}>
        <span class="full"><${Count} value=${n} /></span><span class="short" aria-hidden="true">${n === null
          ? html`<span class="unknown">?</span>`
          : compact(n)}</span></td>
      <td role="cell" class="num wide">${s.cost === null ? html`<${Unknown} />` : cost(s.cost)}</td>
      <td role="cell" class=${`num c-errors ${s.errors ? "err" : "muted"}`}>${count(s.errors)}</td>
      <td role="cell" class="wide models mono muted">${s.models.length
        ? html`<${Text} value=${s.models.join(", ")} />`
        : "–"}</td>
    </tr>
  `;
}

/** @param {Session} s */
function tokenTitle(s) {
  return `${count(s.input_tokens)} in, ${count(s.output_tokens)} out, ${count(s.cached_tokens)} cached`;
}

/** How long, as figure and as bar; redrawn each second only while it grows. @param {{ session: Session, longest: number }} props */
function Lasting({ session: s, longest }) {
  const growing = isGrowing(s);
  const ns = sessionDuration(s, growing ? now.value : 0);
  if (isBound(s)) return html`<span class="muted" title=${BOUND}>≤ ${duration(ns)}</span>`;
  // Sessions last from milliseconds to hours: only a logarithm shows both.
  const share = Math.log10(1 + ns / 1e8) / Math.log10(1 + Math.max(longest, ns) / 1e8);
  return html`
    <span class="dur" aria-hidden="true"
      title="Logarithmic"><i class=${growing ? "growing" : ""} style=${{
        width: `${Math.max(2, share * 100)}%`,
      }}></i></span><span>${duration(ns)}</span>
  `;
}

function Looking() {
  return html`
    <div class="card empty" role="status">
      <h2>Nothing among the newest</h2>
      <p>Looking at older sessions…</p>
    </div>
  `;
}

function NoHits() {
  return html`
    <div class="card empty" role="status">
      <h2>No session matches</h2>
      <p>${text.value
        ? html`filter <code><${Text} value=${text.value} /></code>`
        : null}${text.value && states.value.length ? " and " : ""}${states.value.length
        ? html`state <code><${Text} value=${states.value.join(", ")} /></code>`
        : null}</p>
      <button class="button" onClick=${() =>
        adjust({ q: null, state: null }, { push: true })}>Clear the filter</button>
    </div>
  `;
}

/** Nothing has ever arrived: what to do, ready to copy. It turns into the list by itself. */
function Welcome() {
  // What is installed from a clone is on no index: the server knows where it came from itself.
  const data = /** @type {Status | null} */ (useAnswer(url(["status"])).data);
  const endpoint = location.origin;
  const python = `import otel_sessions

otel_sessions.init(service_name="my-agent")

with otel_sessions.session("first session"):
    ...  # your agent`;
  const shell = `export OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint}
export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`;
  return html`
    <section class="card welcome">
      <h2>Send the first session</h2>
      <p class="muted">Point any OpenTelemetry SDK here; the first span shows up by itself.</p>
      <ol>
        <li>
          <h3>Where to</h3>
          <${Code} text=${shell} label="Copy the environment" />
        </li>
        <li>
          <h3>From Python${data?.install
            ? html`<span class="muted"> – <code><${Text} value=${data.install} /></code></span>`
            : null}</h3>
          <${Code} text=${python} label="Copy the program" />
        </li>
      </ol>
      <p
        class="muted small">Nothing arrives? <code>otel-sessions doctor</code>, where your agent runs, finds out why.</p>
      <p class="listening" role="status"><i aria-hidden="true"></i>Listening on <code>${endpoint}</code>…</p>
    </section>
  `;
}

/** @param {{ text: string, label: string }} props */
function Code({ text, label }) {
  return html`
    <div class="code">
      <pre><code>${text}</code></pre>
      <${Copy} text=${text} label=${label} />
    </div>
  `;
}
