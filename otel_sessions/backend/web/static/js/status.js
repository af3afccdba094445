/**
 * The backend itself: how it does, what it refused, who sends to it, where the data lies.
 *
 * @import { Child } from "../vendor/preact-11.2.0.js"
 * @import { Status } from "./types.d.ts"
 */
import { html, useEffect, useRef } from "../vendor/preact-11.2.0.js";
import { url } from "./api.js";
import { bytes, emitterName, isTight, losses, rate, sdkName, spark } from "./condition.js";
import { count, duration, plural } from "./format.js";
import { stream } from "./live.js";
import { Ago, Count, Duration, Failure, Skeleton, Text, Unknown, useAnswer } from "./parts.js";
import { sessionHref } from "./state.js";

const REFRESH = 2000; // ms
const POINTS = 60; // of the line of rates
const LISTED = 50; // rows of metrics
const OTHER = "(other)"; // how the server counts what is too much to name

/** The page at /status. */
export function StatusPage() {
  const { data, problem, retry } = useAnswer(
    url(["status"]),
    (answer) => stream.follow(null, answer.event_id ?? null),
  );
  useEffect(() => {
    document.title = "Status - otel-sessions";
    stream.follow(null, null);
    const look = () => void (document.visibilityState === "visible" && retry());
    const timer = setInterval(look, REFRESH);
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, []);
  const status = /** @type {Status | null} */ (data);
  if (!status) {
    return html`<main>${
      problem ? html`<${Failure} problem=${problem} retry=${retry} />` : html`<${Skeleton} />`
    }</main>`;
  }
  return html`
    <main>
      <div class="head">
        <h1>Status</h1>
        <span class="muted">otel-sessions <${Text} value=${status.version} />${status.started_at
          ? html`, started <${Ago} ns=${status.started_at} />`
          : null}</span>
        <a class="tag right" href=${url(["status"])} data-external target="_blank">JSON</a>
      </div>
      ${problem ? html`<${Failure} problem=${problem} retry=${retry} />` : null}
      <div class=${problem ? "dimmed" : ""}>
        <${Trouble} status=${status} />
        <${Figures} status=${status} />
        <${Losses} status=${status} />
        <div class="groups">
          <${Storage} status=${status} />
          <${Retention} status=${status} />
          <${Redacted} status=${status} />
          <${Server} status=${status} />
        </div>
        <${Emitters} status=${status} />
        <${Metrics} status=${status} />
      </div>
    </main>
  `;
}

/** What keeps it from storing, now or soon. @param {{ status: Status }} props */
function Trouble({ status }) {
  const { trouble, disk } = status;
  if (trouble) {
    return html`
      <div class="failure" role="alert">
        <h2><i aria-hidden="true">!</i> Nothing can be stored now</h2>
        <p>
          <${Text} value=${trouble} />
        </p>
        <p
          class="muted">Senders are told to come back, and what was acknowledged is safe. It goes on by itself once that is mended.</p>
      </div>
    `;
  }
  if (!isTight(disk)) return null;
  return html`
    <p class="note" role="status"><b>The disk is nearly full:</b> ${bytes(disk?.free ?? 0)} are free.
      Make room, or let old sessions go: <code>otel-sessions serve --retention 30d,10GB</code></p>
  `;
}

/** What happens now, in large figures. @param {{ status: Status }} props */
function Figures({ status }) {
  const { rates, ingest, commits, stream: readers } = status;
  const seen = useRef(/** @type {{ at: string, spans: number[] }} */ ({ at: "", spans: [] }));
  if (status.now && status.now !== seen.current.at) {
    seen.current = { at: status.now, spans: [...seen.current.spans, rates?.spans ?? 0].slice(-POINTS) };
  }
  const waiting = ingest?.waiting_bytes ?? 0;
  const share = ingest?.room_bytes ? waiting / ingest.room_bytes : 0;
  return html`
    <section class="figures" aria-label="Now">
      <${Figure} label="Spans a second" value=${rates ? rate(rates.spans) : null} note="over the last minute">
        <svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
          <path d=${spark(
            seen.current.spans,
          )} />
        </svg>
        </${Figure}>
        <${Figure} label="Logs a second" value=${rates
          ? rate(rates.logs)
          : null} note="life cycle events among them" />
        <${Figure} label="Requests a second" value=${rates
          ? rate(rates.requests)
          : null} note="heartbeats among them" />
        <${Figure} label="Waiting to be stored" value=${ingest
          ? plural(ingest.waiting_requests ?? 0, "request")
          : null}
          note=${ingest?.room_bytes
            ? `${bytes(waiting)} of ${bytes(ingest.room_bytes)}, ${Math.round(share * 100)} %`
            : ""}>
          <i class="meter" role="meter" aria-label="Share of the queue" aria-valuemin="0" aria-valuemax="100"
            aria-valuenow=${Math.round(share * 100)}><i style=${{
              width: `${Math.min(100, share * 100)}%`,
            }}></i></i>
          </${Figure}>
          <${Figure} label="A commit takes" value=${commits?.p50 ? duration(Number(commits.p50)) : null}
            note=${commits?.p99 && commits.max
              ? `99 of 100: ${duration(Number(commits.p99))}, longest ${duration(Number(commits.max))}`
              : "none yet since the start"} />
          <${Figure} label="Pages that look" value=${readers ? count(readers.readers) : null}
            note=${readers ? `${plural(readers.watched_runs, "open run")} watched` : ""} />
          </section>
  `;
}

/** @param {{ label: string, value: string | null, note: string, children?: Child }} props */
function Figure({ label, value, note, children }) {
  return html`
    <div class="card figure">
      <h2>${label}</h2>
      <b>${value ?? html`<${Unknown} />`}</b>
      ${children}
      <small class="muted">${note}</small>
    </div>
  `;
}

/** What is not stored, and why; or plainly that all is. @param {{ status: Status }} props */
function Losses({ status }) {
  const lost = losses(status);
  if (!lost.length) {
    return html`
      <p class="all-well"
        role="status"><span class="state ok"><i aria-hidden="true">✓</i><span>Nothing was refused or dropped</span></span>
        <span class="muted">since the start; no stored session misses a span that is known of.</span></p>
    `;
  }
  return html`
    <section class="card scroll-x lost-table">
      <table class="plain-table">
        <caption>Refused, left out or missing</caption>
        <thead>
          <tr>
            <th scope="col">What</th>
            <th scope="col" class="num">How many</th>
            <th scope="col">What to do</th>
          </tr>
        </thead>
        <tbody>${lost.map((it) =>
          html`
            <tr>
              <td><b><${Text} value=${it.what} /></b><br /><small class="muted"><${Text} value=${it
                .note} /></small></td>
              <td class="num err">${it.href
                ? html`<a class="link" href=${it.href}>${count(it.count)}</a>`
                : count(it.count)}</td>
              <td class="todo">
                <${Text} value=${it.todo} />
              </td>
            </tr>
          `
        )}</tbody>
      </table>
    </section>
  `;
}

/** @param {{ status: Status }} props */
function Storage({ status }) {
  const { store, disk } = status;
  if (!store) return null;
  const used = disk?.size && disk.free !== null ? 1 - disk.free / disk.size : null;
  return html`
    <${Group} name="Storage">
      <${Line} name="Sessions">
        <${Count} value=${store.sessions} />
        </${Line}>
        <${Line} name="Spans">
          <${Count} value=${store.spans} />
          </${Line}>
          <${Line} name="Logs">
            <${Count} value=${store.logs} />
            </${Line}>
            <${Line} name="On disk">
              <${Bytes} value=${store.bytes_on_disk} />
              </${Line}>
              <${Line} name="of it write-ahead log">
                <${Bytes} value=${store.wal_bytes} />
                </${Line}>
                <${Line} name="of it free, to be used again"><${Bytes} value=${store.bytes_free} /></${Line}>
      ${disk
        ? html`
          <${Line} name="Free on the disk">${disk.free === null ? html`<${Unknown} />` : html`
            <span class=${isTight(disk) ? "err" : ""}>${bytes(disk.free)}</span>${used === null
              ? null
              : html`<small class="muted"> (${Math.round(used * 100)} % used)</small>`}
          `}</${Line}>
          <${Line} name="Folder"><code><${Text} value=${disk.folder} /></code></${Line}>
        `
        : null}
    </${Group}>
  `;
}

/** @param {{ status: Status }} props */
function Retention({ status }) {
  const kept = status.retention;
  if (!kept) return null;
  const { ingest } = status;
  const isOn = kept.age !== null || kept.size !== null;
  return html`
    <${Group} name="What is removed">
      ${isOn
        ? html`
          <${Line} name="Sessions unseen for">${kept.age === null
            ? "no bound"
            : html`<${Duration} ns=${
              Number(
                kept.age,
              )
            } />`}</${Line}>
          <${Line} name="Beyond a size of">${kept.size === null
            ? "no bound"
            : html`<${Bytes} value=${kept.size} />`}</${Line}>
          <${Line} name="Last look">${kept.looked_at
            ? html`<${Ago} ns=${kept.looked_at} />`
            : "not yet"}</${Line}>
          <${Line} name="Last removal">${kept.removed_at
            ? html`<${Ago} ns=${kept.removed_at} />`
            : "nothing yet"}</${Line}>
          <${Line} name="Removed since the start">${plural(
            ingest?.pruned_sessions ?? 0,
            "session",
          )}, ${plural(
            ingest?.pruned_spans ?? 0,
            "span",
          )}</${Line}>
        `
        : html`
          <dt>Nothing: every session is kept</dt>
          <dd></dd>
        `}
    </${Group}>
    ${kept.trouble
      ? html`
        <section class="card group">
          <p class="err">
            <${Text} value=${`Nothing can be removed: ${kept.trouble}`} />
          </p>
        </section>
      `
      : null}
  `;
}

/** Secrets that were taken out of what arrived. @param {{ status: Status }} props */
function Redacted({ status }) {
  const kinds = status.redacted;
  if (!kinds) return null;
  const found = Object.entries(kinds).filter(([, n]) => n).sort((a, b) => b[1] - a[1]);
  const none = Object.keys(kinds).length ? "None was found since the start" : "Redaction is switched off";
  return html`
    <${Group} name="Secrets replaced">
      ${found.length
        ? found.map(([kind, n]) =>
          html`
            <${Line} name=${kind.replaceAll("_", " ")}>
              <${Count} value=${n} />
              </${Line}>
          `
        )
        : html`
          <dt>${none}</dt>
          <dd></dd>
        `}
    </${Group}>
  `;
}

/** @param {{ status: Status }} props */
function Server({ status }) {
  const { store } = status;
  return html`
    <${Group} name="Server">
      <${Line} name="Version"><${Text} value=${status.version} /></${Line}>
      ${status.python
        ? html`
          <${Line} name="Python">
            <${Text} value=${status.python} />
            </${Line}>
        `
        : null}
      ${store?.engine
        ? html`
          <${Line} name="Store">
            <${Text} value=${store.engine} />
            </${Line}>
        `
        : null}
      ${store?.schema_version
        ? html`
          <${Line} name="Schema of the file">
            <${Count} value=${store.schema_version} />
            </${Line}>
        `
        : null}
      ${status.idle_after
        ? html`
          <${Line} name="Silence before idle">
            <${Duration} ns=${Number(status.idle_after)} />
            </${Line}>
        `
        : null}
      <${Line} name="Commits"><${Count} value=${status.ingest?.commits} /></${Line}>
      <${Line} name="Events published"><${Count} value=${status.stream?.events} /></${Line}>
    </${Group}>
  `;
}

/** Who sends. @param {{ status: Status }} props */
function Emitters({ status }) {
  const emitters = status.emitters ?? [];
  if (!emitters.length) {
    return html`
      <section class="card empty">
        <h2>Nobody has sent anything since the start</h2>
        <p>Point an agent here, and see why nothing arrives with <code>otel-sessions doctor</code>.</p>
      </section>
    `;
  }
  return html`
    <section class="card scroll-x">
      <table class="plain-table emitters">
        <caption>Who sends, since the start</caption>
        <thead>
          <tr>
            <th scope="col">Service, SDK</th>
            <th scope="col" class="num">Spans</th>
            <th scope="col" class="num">Logs</th>
            <th scope="col" class="num">Sessions</th>
            <th scope="col" class="num">Last seen</th>
          </tr>
        </thead>
        <tbody>${emitters.map((it) =>
          html`
            <tr>
              <td><b><${Text} value=${emitterName(
                it,
              )} /></b><br /><small class="muted"><${Text} value=${sdkName(
                it,
              )} /></small></td>
              <td class="num">
                <${Count} value=${it.spans} />
              </td>
              <td class="num">
                <${Count} value=${it.logs} />
              </td>
              <td class="num">${it.sessions
                ? `${count(it.sessions)}${it.sessions_exact ? "" : "+"}`
                : html`<span class="muted" title="It sends no session.id: each of its traces is a session">no id sent</span>`}</td>
              <td class="num">
                <${Ago} ns=${it.last_seen_at} />
              </td>
            </tr>
          `
        )}</tbody>
      </table>
    </section>
  `;
}

/** Metrics are counted, not kept. @param {{ status: Status }} props */
function Metrics({ status }) {
  return html`
    <${Points} of=${status.metrics_seen} caption="Metrics that were sent here" column="Name"
      note="counted, not stored: send them to Prometheus too" />
    <${Points} of=${status.metric_sessions} caption="Metrics by session" column="Session"
      note="of those that bear a session.id" link=${sessionHref} />
  `;
}

/**
 * Data points by some key, most first; what is beyond the first is counted.
 *
 * @param {{ of?: Record<string, number>, caption: string, column: string, note: string,
 *   link?: (id: string) => string }} props
 */
function Points({ of, caption, column, note, link }) {
  const seen = Object.entries(of ?? {}).sort((a, b) => b[1] - a[1]);
  if (!seen.length) return null;
  const shown = seen.slice(0, LISTED);
  const rest = seen.slice(LISTED).reduce((sum, [, points]) => sum + points, 0);
  return html`
    <section class="card scroll-x">
      <table class="plain-table points">
        <caption>${caption} <small class="muted">${note}</small></caption>
        <thead>
          <tr>
            <th scope="col">${column}</th>
            <th scope="col" class="num">Data points</th>
          </tr>
        </thead>
        <tbody>${shown.map(([key, points]) =>
          html`
            <tr>
              <td><code>${link && key !== OTHER
                ? html`<a class="link" href=${link(key)}><${Text} value=${key} /></a>`
                : html`<${Text} value=${key} />`}</code></td>
              <td class="num">
                <${Count} value=${points} />
              </td>
            </tr>
          `
        )}${seen.length > LISTED
          ? html`
            <tr>
              <td class="muted">and ${count(seen.length - LISTED)} more</td>
              <td class="num">
                <${Count} value=${rest} />
              </td>
            </tr>
          `
          : null}</tbody>
      </table>
    </section>
  `;
}

/** @param {{ name: string, children?: Child }} props */
function Group({ name, children }) {
  return html`
    <section class="card group">
      <h2>${name}</h2>
      <dl>${children}</dl>
    </section>
  `;
}

/** @param {{ name: string, children?: Child }} props */
function Line({ name, children }) {
  return html`
    <dt>
      <${Text} value=${name} />
    </dt>
    <dd class="num">${children}</dd>
  `;
}

/** @param {{ value: number | null | undefined }} props */
function Bytes({ value }) {
  if (value === null || value === undefined) return html`<${Unknown} />`;
  return html`<span title=${`${count(value)} bytes`}>${bytes(value)}</span>`;
}
