/** The backend itself: its counters as it gives them, whatever their number. */
import { html, useEffect } from "../vendor/preact-11.2.0.js";
import { url } from "./api.js";
import { count, pretty } from "./format.js";
import { stream } from "./live.js";
import { Ago, Duration, Failure, Skeleton, Text, Unknown, useAnswer } from "./parts.js";

const REFRESH = 5000; // ms

/** The page at /status. */
export function StatusPage() {
  const { data, problem, retry } = useAnswer(
    url(["status"]),
    (answer) => stream.follow(null, answer.event_id ?? null),
  );
  useEffect(() => {
    document.title = "Status - otel-sessions";
    stream.follow(null, null);
    const timer = setInterval(() => document.visibilityState === "visible" && retry(), REFRESH);
    return () => clearInterval(timer);
  }, []);
  const status = /** @type {Record<string, unknown> | null} */ (data);
  if (!status) {
    return html`<main>${
      problem ? html`<${Failure} problem=${problem} retry=${retry} />` : html`<${Skeleton} />`
    }</main>`;
  }
  const groups = Object.entries(status).filter(([, value]) => isGroup(value));
  const single = Object.entries(status).filter(([name, value]) =>
    !isGroup(value) && name !== "event_id" && name !== "now"
  );
  return html`
    <main>
      <div class="head"><h1>Status</h1></div>
      ${problem ? html`<${Failure} problem=${problem} retry=${retry} />` : null}
      <div class="groups">
        <section class="card group"><h2>server</h2><dl>${single.map(([name, value]) =>
          html`<${Line} name=${name} value=${value} />`
        )}</dl></section>
        ${groups.map(([name, value]) => html`<${Group} name=${name} value=${value} />`)}
      </div>
    </main>
  `;
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isGroup(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {{ name: string, value: Record<string, unknown> }} props */
function Group({ name, value }) {
  const lines = flat(value, "");
  return html`<section class="card group"><h2><${Text} value=${words(name)} /></h2>${
    lines.length
      ? html`<dl>${lines.map(([key, v]) => html`<${Line} name=${key} value=${v} />`)}</dl>`
      : html`<p class="muted">nothing yet</p>`
  }</section>`;
}

/** @param {Record<string, unknown>} group @param {string} prefix @returns {[string, unknown][]} */
function flat(group, prefix) {
  return Object.entries(group).flatMap(([name, value]) =>
    isGroup(value)
      ? flat(value, `${prefix}${name} › `)
      : [/** @type {[string, unknown]} */ ([prefix + name, value])]
  );
}

/** @param {{ name: string, value: unknown }} props */
function Line({ name, value }) {
  return html`
    <dt>
      <${Text} value=${words(name)} />
    </dt>
    <dd class="num">
      <${Value} name=${name} value=${value} />
    </dd>
  `;
}

/** @param {{ name: string, value: unknown }} props */
function Value({ name, value }) {
  if (value === null) return html`<${Unknown} />`;
  if (typeof value === "number") {
    return html`<span title=${String(value)}>${/bytes|size/.test(name) ? bytes(value) : count(value)}</span>`;
  }
  if (typeof value === "string" && /_at$/.test(name) && /^\d{16,}$/.test(value)) {
    return html`<${Ago} ns=${value} />`;
  }
  if (typeof value === "string" && /^\d{9,}$/.test(value)) return html`<${Duration} ns=${Number(value)} />`;
  return html`<${Text} value=${pretty(value)} />`;
}

/** @param {number} n */
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at++;
  }
  return `${at ? n.toFixed(1) : n} ${units[at]}`;
}

/** @param {string} name */
function words(name) {
  return name.includes(".") ? name : name.replaceAll("_", " "); // the names of metrics are others' names
}
