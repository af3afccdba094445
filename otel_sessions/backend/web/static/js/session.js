/**
 * One session: what is known of it, kept right while it lives, and the views of it.
 *
 * @import { Problem, RowsAnswer, RowsDelta, Session, SessionDetail } from "./types.d.ts"
 * @import { Table } from "./rows.js"
 * @import { Signal } from "../vendor/preact-11.2.0.js"
 */
import { html, signal, useEffect, useMemo, useRef, useSignal } from "../vendor/preact-11.2.0.js";
import { get, problemFrom, url, write } from "./api.js";
import {
  compact,
  completeness,
  cost,
  count,
  isBound,
  isGrowing,
  nsBetween,
  plural,
  sessionDuration,
  sessionName,
  sessionTitle,
  tokens,
} from "./format.js";
import { listen, setServerTime, stream } from "./live.js";
import { adjust } from "./nav.js";
import { Ago, Copy, Count, Duration, Failure, Skeleton, State, Text } from "./parts.js";
import { merge, tableOf } from "./rows.js";
import { extent } from "./scale.js";
import { epoch, now, query } from "./state.js";
import { TasksView } from "./tasks.js";
import { Strip, TimelineView } from "./timeline.js";
import { TranscriptView } from "./transcript.js";
import { Waterfall } from "./waterfall.js";

const DETAIL_PAUSE = 500; // ms: news of one session come in bursts

/** What is read of one session, and how it is kept right. */
class OpenedSession {
  /** @param {string} id as the address has it */
  constructor(id) {
    this.id = id;
    /** @type {Signal<SessionDetail | null>} */
    this.detail = signal(/** @type {SessionDetail | null} */ (null));
    /** @type {Signal<Table | null>} */
    this.table = signal(/** @type {Table | null} */ (null));
    /** Grows with every change of the table, which is changed in place. */
    this.version = signal(0);
    this.problem = signal(/** @type {Problem | null} */ (null));
    this.rowsProblem = signal(/** @type {Problem | null} */ (null));
    this.gone = signal(false);
    /** @type {Signal<ReadonlySet<number>>} */
    this.collapsed = signal(/** @type {ReadonlySet<number>} */ (new Set()));
    /** @type {RowsDelta[]} */
    this.deltas = [];
    this.frame = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.abort = new AbortController();
  }

  /** Listen, then read: what changes meanwhile is kept and applied after. */
  open() {
    const deaf = listen({
      session: (s) => s.id === this.detail.peek()?.id && this.#hear(s),
      rows: (delta) => this.#take(delta),
      gone: (id) => id === this.detail.peek()?.id && (this.gone.value = true),
      opened: () => this.#catchUp(),
    });
    this.read();
    return () => {
      deaf();
      this.abort.abort();
      clearTimeout(this.timer);
      cancelAnimationFrame(this.frame);
    };
  }

  /** Read all of it, again if need be; what is shown stays until the new is there. */
  read() {
    this.abort.abort();
    this.abort = new AbortController();
    this.gone.value = false;
    this.#readDetail().then((detail) => detail && stream.follow(detail.id, detail.event_id));
    this.#readRows();
  }

  async #readDetail() {
    try {
      const detail = /** @type {SessionDetail} */ (await get(url(["sessions", this.id]), this.abort.signal));
      setServerTime(detail.now);
      this.detail.value = detail;
      this.problem.value = null;
      return detail;
    } catch (error) {
      this.problem.value = problemFrom(error) ?? this.problem.peek();
      return null;
    }
  }

  async #readRows() {
    try {
      const answer =
        /** @type {RowsAnswer} */ (await get(url(["sessions", this.id, "rows"]), this.abort.signal));
      this.table.value = tableOf(answer);
      this.collapsed.value = new Set();
      this.version.value++;
      this.rowsProblem.value = null;
      await this.#catchUp();
    } catch (error) {
      this.rowsProblem.value = problemFrom(error) ?? this.rowsProblem.peek();
    }
  }

  /** Close the gap between what was read and where the stream began. */
  async #catchUp() {
    const table = this.table.peek();
    if (!table) return;
    try {
      this.#take(await get(url(["sessions", this.id, "rows"], { after: table.revision }), this.abort.signal));
      this.#detailLater();
    } catch (error) {
      this.rowsProblem.value = problemFrom(error);
    }
  }

  /** @param {Session} s */
  #hear(s) {
    const detail = this.detail.peek();
    if (!detail || s.revision < detail.revision) return;
    this.detail.value = { ...detail, ...s };
    this.#detailLater();
  }

  /** Whether retention leaves it alone, as the server has just said. @param {boolean} pinned */
  pinned(pinned) {
    const detail = this.detail.peek();
    if (detail) this.detail.value = { ...detail, pinned };
  }

  #detailLater() {
    this.timer ??= setTimeout(async () => {
      await this.#readDetail();
      this.timer = undefined;
    }, DETAIL_PAUSE);
  }

  /** Keep a delta for the next frame: however many come, rows are drawn once. @param {RowsDelta} delta */
  #take(delta) {
    if (delta.columns.id.length === 0) return;
    this.deltas.push(delta);
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#apply();
    });
  }

  #apply() {
    const table = this.table.peek();
    if (!table) return;
    const own = this.detail.peek()?.id;
    for (const delta of this.deltas) {
      if (delta.revision >= table.revision && (!own || delta.session === own)) {
        merge(table, delta);
      }
    }
    this.deltas = [];
    this.version.value++;
  }
}

const VIEWS = /** @type {const} */ ([
  ["waterfall", "Waterfall"],
  ["transcript", "Transcript"],
  ["tasks", "Tasks"],
  ["timeline", "Timeline"],
]);

/** The glyph of each answer to "is it all here?". */
const WHOLE =
  /** @type {Record<string, string>} */ ({ complete: "✓", "so-far": "…", missing: "!", untold: "?" });

/** The page at /sessions/{id}. @param {{ id: string }} props */
export function SessionPage({ id }) {
  const opened = useMemo(() => new OpenedSession(id), [id]);
  useEffect(() => opened.open(), [opened]);
  const firstEpoch = useRef(epoch.value);
  useEffect(() => {
    if (epoch.value !== firstEpoch.current) opened.read();
    firstEpoch.current = epoch.value;
  }, [epoch.value]);
  const s = opened.detail.value;
  useEffect(() => {
    document.title = s ? `${sessionName(s)} - otel-sessions` : "Session - otel-sessions";
  }, [s && sessionName(s)]);
  if (!s) {
    return html`<main>${
      opened.problem.value
        ? html`
          <nav class="crumbs"><a class="link" href="/sessions">Sessions</a> ›</nav>
          <${Failure} problem=${opened.problem.value} retry=${() => opened.read()} />
        `
        : html`<${Skeleton} />`
    }</main>`;
  }
  return html`
    <main class="fill">
      <${Head} opened=${opened} session=${s} lasting=${lasting(opened, s)} />
      ${opened.problem.value
        ? html`<${Failure} problem=${opened.problem.value} retry=${() => opened.read()} />`
        : null}
      ${opened.gone.value
        ? html`<div class="note" role="status">This session was merged into another, or removed.
          <button class="button" onClick=${() => opened.read()}>Read it again</button></div>`
        : null}
      <${Strip} session=${s} />
      <${Views} opened=${opened} session=${s} />
    </main>
  `;
}

/**
 * How long it took. Of an inferred session its spans tell more than their arrival does: from the first
 * start to the last end that is known.
 *
 * @param {OpenedSession} opened
 * @param {SessionDetail} s
 */
function lasting(opened, s) {
  const table = opened.version.value && opened.table.value;
  if (!table || !isBound(s)) return sessionDuration(s, isGrowing(s) ? now.value : 0);
  const [from, to] = extent(table, nsBetween(table.base, s.last_alive_at));
  return to - from;
}

/** @param {{ opened: OpenedSession, session: SessionDetail, lasting: number }} props */
function Head({ opened, session: s, lasting }) {
  const whole = completeness(s, s.losses, () => now.value);
  const n = tokens(s);
  const given = s.session_id ?? s.id;
  const title = sessionTitle(s);
  return html`
    <div class="head">
      <nav class="crumbs" aria-label="Place"><a href="/sessions">Sessions</a> ›</nav>
      <h1><${Text} value=${sessionName(s)} /></h1>
      ${title ? html`<span class="title"><${Text} value=${title} /></span>` : null}
      <span aria-live="polite"><${State} session=${s} /></span>
    </div>
    ${s.error
      ? html`<p class="why-failed"><i aria-hidden="true">!</i> <span class="visually-hidden">Error:</span>
        <${Text} value=${s.error} /></p>`
      : null}
    <div class="facts">
      <${Fact} name="Service">${s.service
        ? html`<${Text} value=${s.service} />`
        : html`<span class="unknown">unknown</span>`}</${Fact}>
      ${s.user_id
        ? html`
          <${Fact}
            name="User"><span class="long" title=${s.user_id}><${Text} value=${s.user_id} /></span></${Fact}>
        `
        : null}
      <${Fact} name="Started"><${Ago} ns=${s.started_at} /></${Fact}>
      <${Fact} name=${s.inferred ? "Spans cover" : "Duration"}><${Duration} ns=${lasting} /></${Fact}>
      ${s.runs_count > 1 ? html`<${Fact} name="Runs">${count(s.runs_count)}</${Fact}>` : null}
      ${s.tasks_count ? html`<${Fact} name="Tasks">${count(s.tasks_count)}</${Fact}>` : null}
      ${s.turns ? html`<${Fact} name="Turns">${count(s.turns)}</${Fact}>` : null}
      <${Fact} name="Model calls">${count(s.model_calls)}</${Fact}>
      <${Fact} name="Tool calls">${count(s.tool_calls)}</${Fact}>
      <${Fact} name="Tokens" note=${n === null ? "" : tokenNote(s)}><${Count} value=${n} /></${Fact}>
      <${Fact} name="Cost">${s.cost === null
        ? html`<span class="unknown">unknown</span>`
        : cost(s.cost)}</${Fact}>
      ${s.errors
        ? html`<span class="err"><i aria-hidden="true">!</i> <b>${plural(s.errors, "error")}</b></span>`
        : null}
      ${s.models.length
        ? html`
          <${Fact} name=${s.models.length > 1 ? "Models" : "Model"}>
            <${Text} value=${s.models.join(", ")} />
            </${Fact}>
        `
        : null}
      <span class=${`whole ${whole.look}`}>${WHOLE[whole.look]} <b>${whole
        .word}</b>, <span><${Text} value=${whole.note} /></span></span>
      <${Copy} text=${given} label=${`Copy the session id: ${given}`}><span class="mono muted"><${Text} value=${given
          .length > 14
        ? `${given.slice(0, 8)}…`
        : given} /></span></${Copy}>
      <span class="raw"><a class="tag" href=${url(["sessions", s.id])} data-external target="_blank">JSON</a>
        <a class="tag" href=${url([
          "sessions",
          s.id,
          "otlp",
        ])} data-external download=${`${s.id}.otlp.json`}>OTLP</a>
        <${Pin} opened=${opened} session=${s} /></span>
    </div>
  `;
}

/** Keep a session from retention, or no longer. @param {{ opened: OpenedSession, session: SessionDetail }} props */
function Pin({ opened, session: s }) {
  const busy = useSignal(false);
  const failed = useSignal("");
  const turn = async () => {
    busy.value = true;
    failed.value = "";
    try {
      await write(s.pinned ? "DELETE" : "PUT", url(["sessions", s.id, "pin"]));
      opened.pinned(!s.pinned);
    } catch (error) {
      const problem = problemFrom(error);
      failed.value = problem?.detail ?? problem?.title ?? "";
    }
    busy.value = false;
  };
  return html`
    <button class="tag" aria-pressed=${s.pinned} disabled=${busy.value} onClick=${turn}
      title=${s.pinned
        ? "No retention removes this session"
        : "Keep this session whatever the retention is"}>${s.pinned ? "Kept" : "Keep"}</button>
    ${failed.value
      ? html`<span class="err" role="alert"><i aria-hidden="true">!</i> <${Text} value=${failed.value} /></span>`
      : null}
  `;
}

/** @param {{ name: string, note?: string, children?: unknown }} props */
function Fact({ name, note, children }) {
  return html`<span class="fact">${name} <b>${children}</b>${
    note ? html`${" "}<span class="muted">${note}</span>` : null
  }</span>`;
}

/** @param {Session} s */
function tokenNote(s) {
  const parts = [
    `${s.input_tokens === null ? "?" : compact(s.input_tokens)} in`,
    `${s.output_tokens === null ? "?" : compact(s.output_tokens)} out`,
  ];
  if (s.cached_tokens) parts.push(`${compact(s.cached_tokens)} cached`);
  return `(${parts.join(", ")})`;
}

/** @param {{ opened: OpenedSession, session: SessionDetail }} props */
function Views({ opened, session: s }) {
  const view = query.value.get("view") ?? "waterfall";
  /** @param {KeyboardEvent} event */
  const turn = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = VIEWS.findIndex(([name]) => name === view);
    const next = VIEWS[(at + step + VIEWS.length) % VIEWS.length][0];
    adjust({ view: next === "waterfall" ? null : next }, { push: true });
    document.getElementById(`tab-${next}`)?.focus();
  };
  return html`
    <section class="card workspace">
      <div class="tabs" role="tablist" aria-label="Views" onKeyDown=${turn}>${VIEWS.map(([name, word]) =>
        html`
          <button role="tab" id=${`tab-${name}`} aria-selected=${view ===
            name} aria-controls="view" tabindex=${view === name ? 0 : -1}
            onClick=${() =>
              adjust({ view: name === "waterfall" ? null : name }, {
                push: true,
              })}>${word}${name === "tasks" && s.tasks_count
              ? html`${" "}<small>${count(s.tasks_count)}</small>`
              : null}</button>
        `
      )}</div>
      <div id="view" class="view" role="tabpanel" aria-labelledby=${`tab-${view}`}>
        <${View} view=${view} opened=${opened} session=${s} />
      </div>
    </section>
  `;
}

/** @param {{ view: string, opened: OpenedSession, session: SessionDetail }} props */
function View({ view, opened, session: s }) {
  if (view === "transcript") return html`<${TranscriptView} id=${s.id} version=${opened.version.value} />`;
  if (view === "tasks") return html`<${TasksView} session=${s} />`;
  if (view === "timeline") return html`<${TimelineView} session=${s} />`;
  if (opened.rowsProblem.value && !opened.table.value) {
    return html`
      <div class="pad">
        <${Failure} problem=${opened.rowsProblem.value} retry=${() => opened.read()} />
      </div>
    `;
  }
  if (!opened.table.value) {
    return html`
      <div class="pad">
        <${Skeleton} lines=${12} />
      </div>
    `;
  }
  return html`<${Waterfall} opened=${opened} />`;
}
