/** Tables for tests: spans told by what matters, and the rows drawn as text. */
import { Flag } from "../../../otel_sessions/backend/web/static/js/flags.js";
import { merge, Table } from "../../../otel_sessions/backend/web/static/js/rows.js";

const TRACE = "0af7651916cd43dd8448eb211c80319c";

/**
 * @typedef {{ id: string, parent?: string, start?: number, duration?: number | null, name?: string,
 *   trace?: string, flags?: number, status?: number, category?: string, tokens?: number | null }} Span
 */

/** @param {Span[]} spans @param {{ revision?: number, base?: string }} [head] */
export function delta(spans, { revision = 1, base = "1000" } = {}) {
  const traces = [...new Set(spans.map((s) => s.trace ?? TRACE))];
  const names = [...new Set(spans.map((s) => s.name ?? "step"))];
  const categories = [...new Set(spans.map((s) => s.category ?? "step"))];
  const all = (/** @type {number} */ value) => spans.map(() => value);
  return {
    session: "s",
    base,
    revision,
    traces,
    names,
    categories,
    services: ["planner"],
    tasks: [],
    labels: [],
    columns: {
      trace: spans.map((s) => traces.indexOf(s.trace ?? TRACE)),
      id: spans.map((s) => s.id),
      parent_id: spans.map((s) => s.parent ?? ""),
      name: spans.map((s) => names.indexOf(s.name ?? "step")),
      category: spans.map((s) => categories.indexOf(s.category ?? "step")),
      service: all(0),
      start: spans.map((s) => s.start ?? 0),
      duration: spans.map((s) => (s.duration === undefined ? 1 : s.duration)),
      status: spans.map((s) => s.status ?? 0),
      flags: spans.map((s) => s.flags ?? 0),
      task: all(-1),
      input_tokens: spans.map((s) => s.tokens ?? null),
      output_tokens: spans.map(() => null),
      label: all(-1),
      kind: all(1),
    },
  };
}

/** @param {Span[]} spans */
export function grown(spans) {
  const table = new Table("1000");
  merge(table, delta(spans));
  return table;
}

/** The tree as text: two spaces a level. @param {Table} table */
export const drawn = (table, rows = table.order) =>
  [...rows].map((row) =>
    "  ".repeat(table.depth[row]) + (table.is(row, Flag.PLACEHOLDER) ? "?" : "") + table.id[row]
  );
