/**
 * What the page knows: where it is, the time, the stream's health, and the list of sessions. No DOM here.
 *
 * @import { Connection, Place, Session, SessionList } from "./types.d.ts"
 * @import { Signal } from "../vendor/preact-11.2.0.js"
 */
import { batch, signal } from "../vendor/preact-11.2.0.js";
import { compareNs } from "./format.js";

/** @type {Signal<Place>} */
export const place = signal(/** @type {Place} */ ({ page: "sessions" }));
/** The address's query; every view setting lives there. */
export const query = signal(new URLSearchParams());
/** @type {Signal<Connection>} */
export const connection = signal(/** @type {Connection} */ ({ state: "opening", since: 0, retryAt: 0 }));
/** Unix ms by the server's clock, once a second; stands still while the stream is cut. */
export const now = signal(Date.now());
/** Grows when everything shown must be read afresh: the stream could not be resumed. */
export const epoch = signal(0);

/** @param {string} pathname @returns {Place} */
export function parsePlace(pathname) {
  const parts = pathname.split("/").filter(Boolean).map(decoded);
  if (parts.length === 0) return { page: "sessions" };
  if (parts[0] === "sessions" && parts.length === 1) return { page: "sessions" };
  if (parts[0] === "sessions" && parts.length === 2) return { page: "session", id: parts[1] };
  if (parts[0] === "spans" && parts.length === 3) return { page: "span", trace: parts[1], span: parts[2] };
  if (parts[0] === "search" && parts.length === 1) return { page: "search" };
  if (parts[0] === "status" && parts.length === 1) return { page: "status" };
  return { page: "unknown" };
}

/** A part of a path; a stray % is kept as it is. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    if (error instanceof URIError) return part;
    throw error;
  }
}

/** @param {string} id @param {Record<string, string>} [params] */
export function sessionHref(id, params) {
  return `/sessions/${encodeURIComponent(id)}${search(params ?? {})}`;
}

/** @param {string} trace @param {string} span */
export function spanHref(trace, span) {
  return `/spans/${encodeURIComponent(trace)}/${encodeURIComponent(span)}`;
}

/** "?a=b", or "" where every value is empty. @param {Record<string, string | null | undefined>} params */
export function search(params) {
  const set = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value) set.set(name, value);
  const text = set.toString();
  return text && `?${text}`;
}

/** The query with changes; an empty value takes the name out. @param {URLSearchParams} old @param {Record<string, string | null>} changes */
export function changed(old, changes) {
  const set = new URLSearchParams(old);
  for (const [name, value] of Object.entries(changes)) {
    if (value) set.set(name, value);
    else set.delete(name);
  }
  return set;
}

/**
 * The list of sessions: each row a signal of its own, so that news redraws one row; what is new waits
 * until it is asked for, so that nothing moves under the pointer.
 */
export class SessionBook {
  constructor() {
    /** @type {Signal<string[]>} */
    this.order = signal(/** @type {string[]} */ ([]));
    /** @type {Signal<Session[]>} */
    this.held = signal(/** @type {Session[]} */ ([]));
    /** @type {Signal<ReadonlySet<string>>} */
    this.gone = signal(/** @type {ReadonlySet<string>} */ (new Set()));
    /** Who does not meet the filter any more, and is still shown. @type {Signal<ReadonlySet<string>>} */
    this.off = signal(/** @type {ReadonlySet<string>} */ (new Set()));
    /** @type {Signal<string | null>} */
    this.next = signal(/** @type {string | null} */ (null));
    /** @type {Signal<SessionList["counts"] | null>} */
    this.counts = signal(/** @type {SessionList["counts"] | null} */ (null));
    /** @type {Map<string, Signal<Session>>} */
    this.rows = new Map();
    /** States shown; empty means all. @type {ReadonlySet<string>} */
    this.states = new Set();
    /** Whether only the server knows where a new row belongs: the order is not by start, newest first. */
    this.ranked = false;
  }

  /** @param {string} id */
  row(id) {
    return /** @type {Signal<Session>} */ (this.rows.get(id));
  }

  /** Take a first page; rows that stay keep their signal. @param {SessionList} answer @param {ReadonlySet<string>} states @param {boolean} [ranked] */
  load(answer, states, ranked = false) {
    batch(() => {
      const old = this.rows;
      this.rows = new Map();
      for (const s of answer.sessions) this.rows.set(s.id, newer(old.get(s.id), s));
      this.states = states;
      this.ranked = ranked;
      this.order.value = [...this.rows.keys()];
      this.held.value = [];
      this.gone.value = new Set();
      this.off.value = new Set();
      this.next.value = answer.next;
      this.counts.value = answer.counts;
    });
  }

  /** Take a further page. @param {SessionList} answer */
  append(answer) {
    batch(() => {
      for (const s of answer.sessions) this.rows.set(s.id, newer(this.rows.get(s.id), s));
      this.#sort();
      this.next.value = answer.next;
      this.counts.value = answer.counts;
    });
  }

  /**
   * Take news of one session.
   *
   * @param {Session} s
   * @param {boolean} quiet nobody is reading the list just now, so a new row may be shown at once
   * @returns {"updated" | "shown" | "held" | "elsewhere"}
   */
  put(s, quiet) {
    const row = this.rows.get(s.id);
    if (this.off.peek().has(s.id)) this.off.value = without(this.off.peek(), s.id);
    if (row) {
      const before = row.peek().state;
      newer(row, s);
      this.#recount(before, row.peek().state);
      return "updated";
    }
    if (!this.#belongs(s)) return "elsewhere";
    const others = this.held.peek().filter((other) => other.id !== s.id);
    if (!quiet || others.length || this.ranked) {
      this.held.value = [...others, s];
      return "held";
    }
    this.rows.set(s.id, signal(s));
    this.#sort();
    return "shown";
  }

  /** A row changed its state: its chips follow at once, and the next reading tells them exactly. @param {Session["state"]} before @param {Session["state"]} after */
  #recount(before, after) {
    const counts = this.counts.peek();
    if (before === after || !counts) return;
    const moved = { [before]: Math.max(0, (counts[before] ?? 0) - 1), [after]: (counts[after] ?? 0) + 1 };
    this.counts.value = { ...counts, ...moved };
  }

  /** Show what was held. */
  showHeld() {
    batch(() => {
      for (const s of this.held.value) this.rows.set(s.id, newer(this.rows.get(s.id), s));
      this.held.value = [];
      this.#sort();
    });
  }

  /** A session was merged into another, or pruned: its row stays until the next reading, marked. @param {string} id */
  remove(id) {
    this.held.value = this.held.peek().filter((s) => s.id !== id);
    if (this.rows.has(id)) this.gone.value = new Set([...this.gone.peek(), id]);
  }

  /** A session does not meet the filter: its row goes, or where somebody reads the list, it stays, marked. @param {string} id @param {boolean} quiet */
  unmatch(id, quiet) {
    batch(() => {
      this.held.value = this.held.peek().filter((s) => s.id !== id);
      if (!this.rows.has(id)) return;
      if (quiet) {
        this.rows.delete(id);
        this.order.value = this.order.peek().filter((other) => other !== id);
      } else this.off.value = new Set([...this.off.peek(), id]);
    });
  }

  /** @param {Session} s */
  matches(s) {
    return this.states.size === 0 || this.states.has(s.state);
  }

  /** @param {Session} s */
  #belongs(s) {
    if (!this.matches(s)) return false;
    const last = this.order.peek().at(-1);
    return this.ranked || this.next.peek() === null || !last ||
      compareNs(s.started_at, this.row(last).peek().started_at) > 0;
  }

  #sort() {
    const of = (/** @type {string} */ id) => this.row(id).peek();
    const ids = [...this.rows.keys()];
    this.order.value = this.ranked
      ? ids
      : ids.sort((a, b) => compareNs(of(b).started_at, of(a).started_at) || (a < b ? 1 : -1));
  }
}

/** @param {ReadonlySet<string>} set @param {string} id @returns {ReadonlySet<string>} */
function without(set, id) {
  return new Set([...set].filter((other) => other !== id));
}

/** The row's signal with the newer of two states of a session. @param {Signal<Session> | undefined} row @param {Session} s */
function newer(row, s) {
  if (!row) return signal(s);
  if (s.revision >= row.peek().revision) row.value = s;
  return row;
}

/** The one list of the page; it outlives the visit to a session, so Back finds it as it was. */
export const book = new SessionBook();
