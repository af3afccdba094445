/**
 * What was said and called, in order: messages as cards, a tool's result in the card of its call.
 *
 * @import { Problem, Transcript, TranscriptItem } from "./types.d.ts"
 */
import { html, useEffect, useRef, useSignal } from "../vendor/preact-11.2.0.js";
import { get, problemFrom, url } from "./api.js";
import { clockMs, count, lexicon, pretty, toMs } from "./format.js";
import { Failure, Skeleton, Text, Time } from "./parts.js";
import { sessionHref } from "./state.js";

const LONG = 1500; // characters shown of a long text until it is asked for
const LONG_SYSTEM = 320; // of instructions, which say the same in every call
const NEWS_PAUSE = 700; // ms

const WORDS = lexicon({
  system: "system",
  user: "user",
  assistant: "assistant",
  tool_call: "tool call",
  tool_result: "result",
  event: "event",
});

/** @typedef {{ item: TranscriptItem, result: TranscriptItem | null }} Card */

/**
 * Calls with the results that answer them. Frameworks number calls anew in every conversation, so an id
 * alone does not tell whose result it is: where the names differ, or the choice is open, it stands alone.
 *
 * @param {TranscriptItem[]} items
 * @returns {Card[]}
 */
export function paired(items) {
  /** @type {Card[]} */
  const cards = [];
  /** @type {Card[]} */
  let open = [];
  for (const item of items) {
    const call = item.kind === "tool_result" ? callOf(open, item) : null;
    if (call) {
      call.result = item;
      open = open.filter((card) => card !== call);
      continue;
    }
    const card = { item, result: null };
    cards.push(card);
    if (item.kind === "tool_call") open.push(card);
  }
  return cards;
}

/** @param {Card[]} open @param {TranscriptItem} result */
function callOf(open, result) {
  const same = open.filter(({ item }) => result.call_id && item.call_id === result.call_id);
  const named = same.filter(({ item }) => item.name === result.name);
  if (named.length) return named[0];
  return result.name === null && same.length === 1 ? same[0] : null;
}

/** Items as cards. @param {{ items: TranscriptItem[], session: string, linked?: boolean }} props */
export function Messages({ items, session, linked = true }) {
  return html`${
    paired(items).map(({ item, result }, i) =>
      html`<${Message} key=${i} item=${item} result=${result} session=${session} linked=${linked} />`
    )
  }`;
}

/** @param {{ item: TranscriptItem, result: TranscriptItem | null, session: string, linked: boolean }} props */
function Message({ item, result, session, linked }) {
  const ok = result?.ok ?? item.ok;
  const to = item.span && linked ? sessionHref(session, { span: item.span.span_id, detail: "1" }) : null;
  return html`
    <article class=${`msg ${WORDS[item.kind] ? item.kind : ""}`}>
      <header>
        <b><${Text} value=${WORDS[item.kind] ?? item.kind} />${item.name
          ? html`${" · "}<${Text} value=${item.name} />`
          : null}</b>
        ${item.agent ? html`<span><${Text} value=${item.agent} /></span>` : null}
        ${item.model ? html`<span class="mono"><${Text} value=${item.model} /></span>` : null}
        <${Verdict} ok=${ok} of=${item.kind} />
        <span class="right">${item.at
          ? html`<${Time} ns=${item.at} text=${clockMs(toMs(item.at)).slice(0, 10)} />`
          : "time unknown"}${to ? html`${" "}<a class="link" href=${to}>span</a>` : null}</span>
      </header>
      <${Body} value=${item.text} least=${item.kind === "system" ? LONG_SYSTEM : LONG} />
      <${Body} value=${item.arguments} code />
      <${Body} value=${item.result} code />
      ${result
        ? html`
          <div class="result">
            <header><b>result</b></header>
            <${Body} value=${result.text} />
            <${Body} value=${result.result} code />
          </div>
        `
        : null}
    </article>
  `;
}

/** Whether a tool did it; nothing where nobody knows. @param {{ ok: boolean | null, of: string }} props */
function Verdict({ ok, of }) {
  if (!of.startsWith("tool") || ok === null || ok === undefined) return null;
  return ok ? html`<span class="ok">✓ ok</span>` : html`<span class="err">! failed</span>`;
}

/** Text, or a value laid out as JSON; the long are cut until asked for. @param {{ value: unknown, code?: boolean, least?: number }} props */
function Body({ value, code, least = LONG }) {
  const all = useSignal(false);
  const text = pretty(value);
  if (!text) return null;
  const cut = text.length > least * 1.2 && !all.value;
  const shown = cut ? text.slice(0, least) : text;
  return html`<div class=${code ? "body mono" : "body"} dir="auto"><${Text} value=${shown} />${
    cut
      ? html`… <button class="plain link" onClick=${() => (all.value = true)}>all ${
        count(text.length)
      } characters</button>`
      : null
  }</div>`;
}

/** The transcript of a session; grows while the session does. @param {{ id: string, version: number }} props */
export function TranscriptView({ id, version }) {
  const pages = useSignal(
    /** @type {{ after: string | null, items: TranscriptItem[], next: string | null }[]} */ ([]),
  );
  const problem = useSignal(/** @type {Problem | null} */ (null));
  const loading = useSignal(true);
  const busy = useRef(false);
  /** Read the last page again, and what follows it. @param {boolean} onward */
  const read = async (onward) => {
    if (busy.current) return;
    busy.current = true;
    try {
      const last = pages.peek().at(-1);
      const after = onward && last?.next ? last.next : last?.after ?? null;
      const kept = onward && last?.next ? pages.peek() : pages.peek().slice(0, -1);
      const answer = /** @type {Transcript} */ (await get(url(["sessions", id, "transcript"], { after })));
      pages.value = [...kept, { after, items: answer.items, next: answer.next }];
      problem.value = null;
    } catch (error) {
      problem.value = problemFrom(error);
    }
    loading.value = false;
    busy.current = false;
  };
  useEffect(() => {
    const timer = setTimeout(() => read(false), pages.peek().length ? NEWS_PAUSE : 0);
    return () => clearTimeout(timer);
  }, [id, version]);
  const items = pages.value.flatMap((page) => page.items);
  const next = pages.value.at(-1)?.next;
  if (loading.value) {
    return html`
      <div class="pad">
        <${Skeleton} lines=${6} />
      </div>
    `;
  }
  return html`
    <div class="pad transcript" tabindex="0" aria-label="Transcript">
      ${problem.value ? html`<${Failure} problem=${problem.value} retry=${() => read(false)} />` : null}
      ${items.length ? html`<${Messages} items=${items} session=${id} />` : problem.value ? null : html`
        <div class="empty">
          <h2>No messages recorded</h2>
          <p>Spans carry text only where the program that sent them was told to record content.</p>
        </div>
      `}
      ${next
        ? html`<div class="more"><button class="button" onClick=${() => read(true)}>Show more</button></div>`
        : null}
    </div>
  `;
}
