/**
 * Search over the text of all sessions.
 *
 * @import { SearchAnswer, SearchHit } from "./types.d.ts"
 */
import { html, useEffect, useSignal } from "../vendor/preact-11.2.0.js";
import { get, problemFrom, url } from "./api.js";
import { visible } from "./format.js";
import { stream } from "./live.js";
import { Ago, Failure, Skeleton, Text, useAnswer } from "./parts.js";
import { query, sessionHref, spanHref } from "./state.js";

/** The page at /search. */
export function SearchPage() {
  const q = query.value.get("q") ?? "";
  const more = useSignal(/** @type {{ q: string, hits: SearchHit[], next: string | null } | null} */ (null));
  const { data, problem, loading, stale, retry } = useAnswer(
    q ? url(["search"], { q }) : null,
    (/** @type {SearchAnswer} */ answer) => stream.follow(null, answer.event_id),
  );
  useEffect(() => {
    document.title = q ? `${q} - otel-sessions` : "Search - otel-sessions";
    stream.follow(null, null);
  }, [q]);
  const further = more.value?.q === q ? more.value : null;
  const answer = /** @type {SearchAnswer | null} */ (data);
  const hits = answer ? [...answer.hits, ...(further?.hits ?? [])] : [];
  const next = further ? further.next : answer?.next ?? null;
  const failed = useSignal(/** @type {import("./types.d.ts").Problem | null} */ (null));
  const older = async () => {
    try {
      const page = /** @type {SearchAnswer} */ (await get(url(["search"], { q, before: next })));
      more.value = { q, hits: [...(further?.hits ?? []), ...page.hits], next: page.next };
      failed.value = null;
    } catch (error) {
      failed.value = problemFrom(error);
    }
  };
  const wrong = problem ?? failed.value;
  return html`
    <main class="narrow">
      <h1 class="visually-hidden">Search</h1>
      ${wrong ? html`<${Failure} problem=${wrong} retry=${problem ? retry : older} />` : null}
      ${!q
        ? html`
          <div class="card empty">
            <h2>Search every span and message</h2>
            <p>Any text, in any script: what was asked, answered, called; names and attributes. <kbd>/</kbd> puts you into the box.</p>
          </div>
        `
        : loading && !answer
        ? html`<${Skeleton} />`
        : answer && hits.length === 0 && !wrong
        ? html`
          <div class="card empty" role="status">
            <h2>Nothing contains “<${Text} value=${q} />”</h2>
            <p>The search looks for exactly these characters, in upper or lower case.</p>
          </div>
        `
        : html`<ol class=${`hits ${stale ? "dimmed" : ""}`}>${
          hits.map((hit) => html`<${Hit} key=${hit.trace_id + hit.span_id} hit=${hit} q=${q} />`)
        }</ol>`}
      ${next && hits.length
        ? html`<div class="more"><button class="button" onClick=${older}>Show older hits</button></div>`
        : null}
    </main>
  `;
}

/** @param {{ hit: SearchHit, q: string }} props */
function Hit({ hit, q }) {
  return html`
    <li class="card hit">
      <a class="open" href=${spanHref(hit.trace_id, hit.span_id)}><b><${Marked} text=${hit.name ||
        "unnamed span"} q=${q} /></b></a>
      <span class="muted">in <a class="link" href=${sessionHref(hit.session, {
        span: hit.span_id,
        detail: "1",
      })}><${Text}
        value=${hit.session_name ?? hit.session} /></a> · <${Ago} ns=${hit.start} /></span>
      ${hit.snippet && hit.snippet !== hit.name
        ? html`
          <p class="mono">
            <${Marked} text=${hit.snippet} q=${q} />
          </p>
        `
        : null}
    </li>
  `;
}

/** Text with the wanted part marked, as text nodes. @param {{ text: string, q: string }} props */
function Marked({ text, q }) {
  const shown = visible(text);
  const at = shown.toLowerCase().indexOf(q.toLowerCase());
  if (at < 0 || !q) return html`<${Text} value=${text} />`;
  return html`<bdi>${shown.slice(0, at)}<mark>${shown.slice(at, at + q.length)}</mark>${
    shown.slice(at + q.length)
  }</bdi>`;
}
