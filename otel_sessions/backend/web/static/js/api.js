/**
 * The server as the page sees it: JSON answers, problems, and the one stream of events.
 *
 * @import { Connection, Problem } from "./types.d.ts"
 */

const API = "/api/v1";

/** The address of an answer: parts are percent-encoded, empty parameters left out. @param {string[]} parts @param {Record<string, string | number | null | undefined>} [params] */
export function url(parts, params = {}) {
  const set = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") set.set(name, String(value));
  }
  const text = set.toString();
  return `${API}/${parts.map(encodeURIComponent).join("/")}${text && `?${text}`}`;
}

/** What went wrong with a request, in the words of the server, or ours where none came. */
export class RequestError extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.title);
    this.name = "RequestError";
    this.problem = problem;
  }
}

/**
 * Get one JSON answer.
 *
 * @template T
 * @param {string} address
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 * @throws {RequestError} for everything but an abort
 */
export async function get(address, signal) {
  let response;
  try {
    response = await fetch(address, { signal, headers: { accept: "application/json" } });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new RequestError({ title: "The server cannot be reached", status: 0, instance: address });
  }
  if (!response.ok) throw new RequestError(await problemOf(response, address));
  try {
    return await response.json();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new RequestError({
      title: "The answer was cut short or is no JSON",
      status: response.status,
      instance: address,
    });
  }
}

/**
 * Read an answer that comes line by line, each a JSON value, as it comes.
 *
 * @template T
 * @param {string} address
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<T>}
 * @throws {RequestError} for everything but an abort
 */
export async function* lines(address, signal) {
  const cut = { title: "The answer was cut short", status: 200, instance: address };
  let response;
  try {
    response = await fetch(address, { signal, headers: { accept: "application/x-ndjson" } });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new RequestError({ title: "The server cannot be reached", status: 0, instance: address });
  }
  if (!response.ok || !response.body) throw new RequestError(await problemOf(response, address));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) yield JSON.parse(part);
    }
  } catch (error) {
    if (isAbort(error) || !(error instanceof TypeError)) throw error;
    throw new RequestError(cut);
  } finally {
    reader.releaseLock();
  }
  if (rest) throw new RequestError(cut);
}

/**
 * Ask for a change, as only a page of this server can.
 *
 * @param {"PUT" | "DELETE"} method
 * @param {string} address
 * @throws {RequestError}
 */
export async function write(method, address) {
  const { token } = /** @type {{ token: string }} */ (await get(url(["csrf"])));
  let response;
  try {
    response = await fetch(address, {
      method,
      headers: { accept: "application/json", "x-csrf-token": token },
    });
  } catch {
    throw new RequestError({ title: "The server cannot be reached", status: 0, instance: address });
  }
  if (!response.ok) throw new RequestError(await problemOf(response, address));
}

/** @param {unknown} error */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** The problem of a failed request; anything else is a fault of the page and is thrown on. @param {unknown} error @returns {Problem | null} null for an abort */
export function problemFrom(error) {
  if (isAbort(error)) return null;
  if (error instanceof RequestError) return error.problem;
  throw error;
}

/** @param {Response} response @param {string} address @returns {Promise<Problem>} */
async function problemOf(response, address) {
  const fallback = {
    title: response.statusText || "The request failed",
    status: response.status,
    instance: address,
    retryAfter: Number(response.headers.get("retry-after")) || undefined,
  };
  if (!/json/.test(response.headers.get("content-type") ?? "")) return fallback;
  const body = await response.json().catch(() => null);
  return body && typeof body.title === "string" ? { ...fallback, ...body } : fallback;
}

const EVENTS = ["session", "unmatched", "rows", "gone", "reset"];
const FIRST_DELAY = 1000; // ms
const LAST_DELAY = 15_000;

/**
 * The one EventSource of the page. It is closed while the tab is hidden (a browser grants an origin six
 * connections in all) and reopened by us, with back-off, after the id of the last event: EventSource
 * itself gives up for good on any answer but 200.
 */
export class Stream {
  /**
   * @param {(state: Connection) => void} onState
   * @param {(name: string, data: any) => void} onEvent
   */
  constructor(onState, onEvent) {
    this.onState = onState;
    this.onEvent = onEvent;
    /** @type {EventSource | null} */
    this.source = null;
    /** @type {string | null} */
    this.after = null;
    /** @type {string | null} */
    this.session = null;
    /** What sessions have to meet to be told of; "" is every session. */
    this.filter = "";
    this.wanted = false;
    this.resting = false;
    this.attempts = 0;
    this.cutAt = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /** Follow all sessions, and one in detail if given; `after` is used unless a stream is already further on. @param {string | null} session @param {string | null} after */
  follow(session, after) {
    // One that is open was open before what is read now: it misses nothing.
    if (this.wanted && session === this.session) return;
    this.session = session;
    this.after ??= after;
    this.wanted = true;
    this.#open();
  }

  /** From a position on hear of those sessions only that meet a filter. @param {string} filter @param {string} after */
  narrow(filter, after) {
    if (filter === this.filter) return;
    this.filter = filter;
    this.after = after; // what came since was told by the other filter
    if (this.wanted && this.source) this.#open();
  }

  /** Close while nobody looks. */
  rest() {
    this.resting = true;
    this.#close();
    if (this.wanted) this.onState({ state: "resting", since: Date.now(), retryAt: 0 });
  }

  /** Open again, from where it was left. */
  wake() {
    if (!this.resting) return;
    this.resting = false;
    this.attempts = 0;
    if (this.wanted) this.#open();
  }

  /** Try now instead of after the back-off. */
  retry() {
    if (this.wanted && !this.source) this.#open();
  }

  #open() {
    this.#close();
    if (this.resting) return;
    const source = new EventSource(
      url(["stream"], { after: this.after, session: this.session, q: this.filter }),
    );
    this.source = source;
    source.onopen = () => {
      this.attempts = 0;
      this.cutAt = 0;
      this.onState({ state: "live", since: Date.now(), retryAt: 0 });
    };
    source.onerror = () => this.#cut();
    for (const name of EVENTS) source.addEventListener(name, (event) => this.#take(name, event));
  }

  /** @param {string} name @param {MessageEvent} event */
  #take(name, event) {
    if (event.lastEventId) this.after = event.lastEventId;
    if (name === "reset") {
      // Whoever reads afresh will say from where to go on.
      this.#close();
      this.wanted = false;
      this.after = null;
    }
    this.onEvent(name, JSON.parse(event.data));
  }

  #cut() {
    this.#close();
    this.cutAt ||= Date.now();
    const delay = Math.min(LAST_DELAY, FIRST_DELAY * 2 ** this.attempts++);
    this.onState({ state: "cut", since: this.cutAt, retryAt: Date.now() + delay });
    this.timer = setTimeout(() => this.#open(), delay);
  }

  #close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}
