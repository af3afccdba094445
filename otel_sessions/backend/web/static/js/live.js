/**
 * The stream, wired: its events go to whoever listens, its health and the server's time to `state`.
 *
 * @import { RowsDelta, Session } from "./types.d.ts"
 */
import { Stream } from "./api.js";
import { toMs } from "./format.js";
import { connection, epoch, now } from "./state.js";

/**
 * @typedef {object} Listener
 * @property {(s: Session) => void} [session]
 * @property {(delta: RowsDelta) => void} [rows]
 * @property {(id: string) => void} [gone]
 * @property {(id: string) => void} [unmatched] it does not meet the stream's filter
 * @property {() => void} [opened] the stream is live, for the first time or again
 */

/** @type {Set<Listener>} */
const listeners = new Set();
let serverAhead = 0; // ms

/** Hear events until the returned function is called. @param {Listener} listener */
export function listen(listener) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

export const stream = new Stream(
  (next) => {
    const reopened = next.state === "live" && connection.peek().state !== "live";
    connection.value = next;
    if (reopened) { for (const listener of listeners) listener.opened?.(); }
  },
  (name, data) => {
    if (name === "reset") epoch.value++;
    for (const listener of listeners) {
      if (name === "session") listener.session?.(data);
      if (name === "rows") listener.rows?.(data);
      if (name === "gone") listener.gone?.(data.id);
      if (name === "unmatched") listener.unmatched?.(data.id);
    }
    if (name === "session" && data.now) setServerTime(data.now);
  },
);

/** Learn the server's clock from any answer that bears it. @param {string} ns */
export function setServerTime(ns) {
  serverAhead = toMs(ns) - Date.now();
  tick();
}

function tick() {
  if (connection.peek().state !== "cut") now.value = Date.now() + serverAhead;
}

/** Start the clock, and let the stream rest while the tab is hidden. */
export function start() {
  setInterval(() => document.visibilityState === "visible" && tick(), 1000);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") stream.rest();
    else {
      tick();
      stream.wake();
    }
  });
  addEventListener("online", () => stream.retry());
}
