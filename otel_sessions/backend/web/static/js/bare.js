/**
 * Traces that tell of no agent's work. Codex sends some fifteen a run, of one span each, beside its session:
 * nothing in them says whose they are. In the list neighbours of that kind are one line, until it is opened.
 * Pure.
 *
 * @import { Session } from "./types.d.ts"
 */

const LEAST = 3;

/** A trace that is its own session, in which nothing was said, done, asked for or gone wrong. @param {Session} s */
export function isBare(s) {
  return s.session_id === null && s.runs_count === 0 && s.tasks_count === 0 && s.errors === 0 && !s.turns &&
    s.model_calls === 0 && s.tool_calls === 0 && s.agents.length === 0 && s.outcome === null;
}

/**
 * Part a list into lines: each session is one, but for neighbours of one service that are bare.
 *
 * @param {string[]} ids
 * @param {(id: string) => Session} of
 * @returns {string[][]} all ids, in their order
 */
export function lines(ids, of) {
  /** @type {string[][]} */
  const parted = [];
  for (let from = 0; from < ids.length;) {
    const first = of(ids[from]);
    let to = from + 1;
    while (to < ids.length && isBare(first) && isAlike(first, of(ids[to]))) to++;
    if (to - from >= LEAST) parted.push(ids.slice(from, to));
    else for (const id of ids.slice(from, to)) parted.push([id]);
    from = to;
  }
  return parted;
}

/** @param {Session} a @param {Session} b */
function isAlike(a, b) {
  return isBare(b) && a.service === b.service;
}

/** What bare traces are called, each name once, the most frequent first. @param {Session[]} sessions */
export function namesOf(sessions) {
  /** @type {Map<string, number>} */
  const times = new Map();
  for (const s of sessions) if (s.name) times.set(s.name, (times.get(s.name) ?? 0) + 1);
  return [...times].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
}
