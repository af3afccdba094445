/**
 * One span in full: beside the waterfall, and as a page of its own.
 *
 * @import { Child } from "../vendor/preact-11.2.0.js"
 * @import { KeyValue, OtlpLog, OtlpSpan, SpanDetail } from "./types.d.ts"
 */
import { html, useEffect } from "../vendor/preact-11.2.0.js";
import { url } from "./api.js";
import { anyValue, attribute, clockMs, count, link, nsBetween, plural, toMs } from "./format.js";
import { stream } from "./live.js";
import { Copy, Duration, Failure, Kind, Skeleton, Text, Time, Unknown, useAnswer } from "./parts.js";
import { ERROR, Flag } from "./flags.js";
import { sessionHref, spanHref } from "./state.js";
import { Messages } from "./transcript.js";

const KINDS = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/** What flags say, in words. @type {[number, string, string][]} */
export const FLAG_WORDS = [
  [Flag.LATE, "late", "It ended after its run had ended"],
  [Flag.FORCED, "forced end", "It was ended because its process was ending"],
  [Flag.SYNTHETIC, "made up", "This root was made up for a run that was lost"],
];

/** The page at /spans/{trace}/{span}. @param {{ trace: string, span: string }} props */
export function SpanPage({ trace, span }) {
  const { data, problem, retry } = useAnswer(
    url(["spans", trace, span]),
    (/** @type {SpanDetail} */ answer) => stream.follow(null, answer.event_id),
  );
  const detail = /** @type {SpanDetail | null} */ (data);
  useEffect(() => {
    document.title = `${detail?.row.name ?? "Span"} - otel-sessions`;
    stream.follow(null, null);
  }, [detail]);
  return html`
    <main class="narrow">
      <nav class="crumbs" aria-label="Place"><a class="link" href="/sessions">Sessions</a> › ${detail
        ? html`<a class="link" href=${sessionHref(detail.session)}>session</a> › <span>span</span>
        <a class="button" href=${
          sessionHref(detail.session, { span, detail: "1" })
        }>Show in the waterfall</a>`
        : "span"}</nav>
      ${problem ? html`<${Failure} problem=${problem} retry=${retry} />` : null}
      ${detail
        ? html`
          <article class="card pad">
            <${Detail} detail=${detail} trace=${trace} span=${span} />
          </article>
        `
        : problem
        ? null
        : html`<${Skeleton} />`}
    </main>
  `;
}

/**
 * The panel beside the waterfall. Its head is known from the row, so that a click answers at once.
 *
 * @param {{ trace: string, span: string, name: string, category: string, revision: string, close: () => void }} props
 */
export function SpanPanel({ trace, span, name, category, revision, close }) {
  const address = url(["spans", trace, span]);
  const { data, stale, problem, loading, retry } = useAnswer(address);
  useEffect(() => {
    if (data) retry(); // the row changed while its detail was open
  }, [revision]);
  const detail = /** @type {SpanDetail | null} */ (data);
  const other = !detail || stale;
  return html`
    <aside class="panel" aria-label="Span">
      <button class="icon close" aria-label="Close the detail" title="Close (Esc)" onClick=${close}>✕</button>
      ${problem
        ? html`
          <h2 class="span-name">
            <${Kind} category=${category} />
            <${Text} value=${name || "missing span"} />
          </h2>
          <${Failure} problem=${problem} retry=${retry} />
        `
        : other
        ? html`
          <h2 class="span-name">
            <${Kind} category=${category} />
            <${Text} value=${name || "missing span"} />
          </h2>${loading ? html`<${Skeleton} lines=${5} />` : null}
        `
        : html`<${Detail} detail=${detail} trace=${trace} span=${span} panel />`}
    </aside>
  `;
}

/** @param {{ detail: SpanDetail, trace: string, span: string, panel?: boolean }} props */
function Detail({ detail, trace, span, panel }) {
  const { row, span: full } = detail;
  const ns = row.end === null ? null : nsBetween(row.start, row.end);
  return html`
    <h2 class="span-name"><${Kind} category=${row.category} /><${Text} value=${row.name ||
      "unnamed span"} />${panel
      ? html`<a class="link small" href=${spanHref(trace, span)}>own page</a>`
      : null}</h2>
    <p class="sub">
      <span><${Text} value=${row.category} /></span>
      ${row.status === ERROR ? html`<span class="err">! error</span>` : null}
      <span>${row.end === null ? "open" : html`<${Duration} ns=${ns} />`}</span>
      ${usage(row)}
      ${row.model ? html`<span class="mono"><${Text} value=${row.model} /></span>` : null}
      ${row.agent ? html`<span>agent <${Text} value=${row.agent} /></span>` : null}
      ${row.service ? html`<span class="tag"><${Text} value=${row.service} /></span>` : null}
      ${FLAG_WORDS.map(([flag, word, why]) =>
        row.flags & flag ? html`<span class="tag" title=${why}>${word}</span>` : null
      )}
    </p>
    ${full?.status?.message
      ? html`
        <p class="status-message">
          <${Text} value=${full.status.message} />
        </p>
      `
      : null}
    ${full ? null : html`<p class="note">Announced as open; the span itself has not arrived yet.</p>`}
    ${detail.messages.length
      ? html`<${Messages} items=${detail.messages} session=${detail.session} linked=${false} />`
      : null}
    ${full ? html`<${Events} span=${full} start=${row.start} />` : null}
    ${full
      ? html`
        <${Section} title="Attributes" open count=${full.attributes?.length}>
          <${Attributes} list=${full.attributes} dropped=${full.droppedAttributesCount} />
          </${Section}>
      `
      : null}
    ${full ? html`<${Links} span=${full} />` : null}
    ${detail.logs.length
      ? html`<${Section} title="Logs" count=${detail.logs.length}>${
        detail.logs.map((log) => html`<${Log} log=${log} />`)
      }</${Section}>`
      : null}
    <${Section} title="Identity"
      open=${!panel}><${Identity} detail=${detail} trace=${trace} span=${span} /></${Section}>
    ${detail.resource?.attributes?.length
      ? html`
        <${Section} title="Resource" count=${detail.resource.attributes.length}>
          <${Attributes} list=${detail.resource.attributes} />
          </${Section}>
      `
      : null}
  `;
}

/** @param {SpanDetail["row"]} row */
function usage(row) {
  if (row.input_tokens === null && row.output_tokens === null) return null;
  return html`<span>${count(row.input_tokens)} in, ${count(row.output_tokens)} out</span>`;
}

/** @param {{ title: string, count?: number, open?: boolean, children?: Child }} props */
function Section({ title, count: n, open, children }) {
  return html`<details class="section" open=${open}><summary>${title}${
    n ? html`${" "}<span class="muted">${count(n)}</span>` : null
  }</summary>${children}</details>`;
}

/** @param {{ list?: KeyValue[], dropped?: number }} props */
function Attributes({ list = [], dropped }) {
  return html`
    ${list.length
      ? html`<dl class="attributes">${list.map((kv) => html`<${Attribute} kv=${kv} />`)}</dl>`
      : html`<p class="muted">none</p>`}
    ${dropped ? html`<p class="err">${plural(dropped, "attribute")} dropped by the sender</p>` : null}
  `;
}

/** @param {{ kv: KeyValue }} props */
function Attribute({ kv }) {
  const { type, text } = anyValue(kv.value);
  const address = type === "string" ? link(text) : null;
  return html`
    <dt>
      <${Text} value=${kv.key} />
    </dt>
    <dd class=${`v-${type}`} title=${type}>${address
      ? html`
        <a class="link" href=${address} target="_blank"
          rel="noopener noreferrer"><${Text} value=${text} /></a>
      `
      : type === "empty"
      ? html`<span class="unknown">empty</span>`
      : html`<${Text} value=${text} />`}</dd>
  `;
}

/** Events in order of time; an exception with its stack. @param {{ span: OtlpSpan, start: string }} props */
function Events({ span, start }) {
  const events = span.events ?? [];
  if (!events.length && !span.droppedEventsCount) return null;
  return html`<${Section} title="Events" count=${events.length} open>${
    events.map((event) => {
      const stack = attribute(event.attributes, "exception.stacktrace");
      const type = attribute(event.attributes, "exception.type");
      const message = attribute(event.attributes, "exception.message");
      const rest = (event.attributes ?? []).filter((kv) => !kv.key.startsWith("exception."));
      return html`<div class=${`event ${type || stack ? "exception" : ""}`}>
        <header><b><${Text} value=${type ?? event.name ?? "event"} /></b>${
        event.timeUnixNano
          ? html`<span class="right">+<${Duration} ns=${nsBetween(start, event.timeUnixNano)} /></span>`
          : null
      }</header>
        ${
        message
          ? html`
            <p>
              <${Text} value=${message} />
            </p>
          `
          : null
      }
        ${stack ? html`<pre class="stack" tabindex="0"><${Text} value=${stack} /></pre>` : null}
        ${rest.length ? html`<${Attributes} list=${rest} />` : null}
      </div>`;
    })
  }${
    span.droppedEventsCount
      ? html`<p class="err">${plural(span.droppedEventsCount, "event")} dropped by the sender</p>`
      : null
  }</${Section}>`;
}

/** @param {{ span: OtlpSpan }} props */
function Links({ span }) {
  if (!span.links?.length) return null;
  return html`<${Section} title="Links" open count=${span.links.length}>${
    span.links.map((to) =>
      html`<p><a class="link mono" href=${
        spanHref(to.traceId, to.spanId)
      }><${Text} value=${to.spanId} /></a> <span class="muted">in trace <span class="mono"><${Text} value=${to.traceId} /></span></span></p>${
        to.attributes?.length ? html`<${Attributes} list=${to.attributes} />` : null
      }`
    )
  }</${Section}>`;
}

/** @param {{ log: OtlpLog }} props */
function Log({ log }) {
  const at = [log.timeUnixNano, log.observedTimeUnixNano].find((ns) => ns && ns !== "0");
  const body = anyValue(log.body).text;
  return html`
    <div
      class="event"><header><b><${Text} value=${log.eventName || log.severityText || "log"} /></b>${at
        ? html`<span class="right"><${Time} ns=${at} text=${clockMs(toMs(at))} /></span>`
        : null}</header>${body
        ? html`
          <div class="body">
            <${Text} value=${body} />
          </div>
        `
        : null}<${Attributes} list=${log.attributes} /></div>
  `;
}

/** @param {{ detail: SpanDetail, trace: string, span: string }} props */
function Identity({ detail, trace, span }) {
  const { row, scope, span: full } = detail;
  /** @type {[string, Child][]} */
  const lines = [
    [
      "trace",
      html`
        <${Copy} text=${trace} label="Copy the trace id">
          <${Text} value=${trace} />
          </${Copy}>
      `,
    ],
    [
      "span",
      html`
        <${Copy} text=${span} label="Copy the span id">
          <${Text} value=${span} />
          </${Copy}>
      `,
    ],
    [
      "parent",
      row.parent_id
        ? html`<a class="link" href=${spanHref(trace, row.parent_id)}>${row.parent_id}</a>`
        : "none: a root",
    ],
    ["start", html`<${Time} ns=${row.start} text=${clockMs(toMs(row.start))} />`],
    ["end", row.end ? html`<${Time} ns=${row.end} text=${clockMs(toMs(row.end))} />` : "open"],
    [
      "received",
      detail.received_at
        ? html`<${Time} ns=${detail.received_at} text=${clockMs(toMs(detail.received_at))} />`
        : html`<${Unknown} />`,
    ],
    ["kind", KINDS[Number(full?.kind ?? 0)] ?? String(full?.kind)],
    ["task", row.task_id ? html`<${Text} value=${row.task_id} />` : "none"],
    [
      "scope",
      scope?.name ? html`<${Text} value=${`${scope.name} ${scope.version ?? ""}`.trim()} />` : "none",
    ],
  ];
  return html`
    <dl class="attributes">${lines.map(([name, value]) =>
      html`
        <dt>${name}</dt>
        <dd>${value}</dd>
      `
    )}</dl>
    <p><a class="tag" href=${url(["spans", trace, span])} data-external target="_blank">JSON</a></p>
  `;
}
