/**
 * The tasks of a session, one line each, with their place in its time.
 *
 * @import { SessionDetail, Task } from "./types.d.ts"
 */
import { html } from "../vendor/preact-11.2.0.js";
import { count, sessionDuration, toMs } from "./format.js";
import { Duration, Named, Text, Time, Unknown } from "./parts.js";
import { now, sessionHref } from "./state.js";

/** Tasks under their parents, earliest first; a parent nobody knows, or a circle, hides none. @param {Task[]} tasks @returns {{ task: Task, depth: number }[]} */
export function nested(tasks) {
  const known = new Set(tasks.map((task) => task.id));
  const sorted = [...tasks].sort((a, b) => toMs(a.started_at) - toMs(b.started_at));
  /** @type {{ task: Task, depth: number }[]} */
  const lines = [];
  const seen = new Set();
  /** @param {Task} task @param {number} depth */
  const add = (task, depth) => {
    if (seen.has(task.id)) return;
    seen.add(task.id);
    lines.push({ task, depth });
    for (const child of sorted) if (child.parent_id === task.id) add(child, depth + 1);
  };
  for (const task of sorted) if (!task.parent_id || !known.has(task.parent_id)) add(task, 0);
  for (const task of sorted) add(task, 0);
  return lines;
}

/** The tab "Tasks". @param {{ session: SessionDetail }} props */
export function TasksView({ session: s }) {
  const start = toMs(s.started_at);
  const whole = sessionDuration(s, now.value) / 1e6 || 1;
  if (!s.tasks.length) {
    return html`
      <div class="pad">
        <div class="empty">
          <h2>No tasks</h2>
          <p>A program marks units of work with <code>session.task(…)</code>; this one did not.</p>
        </div>
      </div>
    `;
  }
  return html`
    <div class="pad scroll-x" tabindex="0" aria-label="Tasks">
      <table class="plain-table tasks">
        <thead>
          <tr>
            <th scope="col">Task</th>
            <th scope="col">State</th>
            <th scope="col" class="wide">In the session</th>
            <th scope="col">Started</th>
            <th scope="col" class="num">Duration</th>
            <th scope="col" class="num">Spans</th>
          </tr>
        </thead>
        <tbody>${nested(s.tasks).map(({ task, depth }) =>
          html`
            <${Line} key=${task.id} task=${task} depth=${depth} session=${s} start=${start}
              whole=${whole} />
          `
        )}</tbody>
      </table>
    </div>
  `;
}

/** @param {{ task: Task, depth: number, session: SessionDetail, start: number, whole: number }} props */
function Line({ task, depth, session: s, start, whole }) {
  const from = toMs(task.started_at);
  const open = task.ended_at === null;
  const to = task.ended_at === null ? start + whole : toMs(task.ended_at);
  const name = html`<b><${Text} value=${task.name ?? task.id} /></b>`;
  return html`
    <tr>
      <td style=${{ paddingInlineStart: `${10 + Math.min(depth, 12) * 16}px` }}>${task.span_id
        ? html`<a class="link" href=${sessionHref(s.id, { span: task.span_id, detail: "1" })}>${name}</a>`
        : name}</td>
      <td>${task.state ? html`<${Named} name=${task.state} />` : html`<${Unknown} />`}</td>
      <td
        class="wide"><span class="task-track" aria-hidden="true"><i class=${`k-task ${open ? "open" : ""} ${
          task.state === "failed" ? "bad" : ""
        }`} style=${{
          insetInlineStart: `${((from - start) / whole) * 100}%`,
          inlineSize: `${Math.max(0.5, ((to - from) / whole) * 100)}%`,
        }}></i></span></td>
      <td>
        <${Time} ns=${task.started_at} />
      </td>
      <td class="num">${task.duration === null
        ? html`<span class="muted">open</span>`
        : html`<${Duration} ns=${Number(task.duration)} />`}</td>
      <td class="num">${count(task.spans)}</td>
    </tr>
  `;
}
