/** Where the page begins: the bar, the routes, and what hangs over every page. */
import { html, render, useEffect, useSignal } from "../vendor/preact-11.2.0.js";
import { Find } from "./find.js";
import { clock } from "./format.js";
import { Help, helpOpen, start as startKeys, useKeys } from "./keys.js";
import { start as startLive, stream } from "./live.js";
import { go, start as startNav } from "./nav.js";
import { SearchPage } from "./search.js";
import { SessionPage } from "./session.js";
import { SessionsPage, start as startBook } from "./sessions.js";
import { SpanPage } from "./span.js";
import { connection, place } from "./state.js";
import { StatusPage } from "./status.js";
import { start as startTheme, ThemeSwitch } from "./theme.js";

const PAGES = [["/sessions", "Sessions", "sessions"], ["/search", "Search", "search"], [
  "/status",
  "Status",
  "status",
]];

function App() {
  useKeys({
    help: () => (helpOpen.value = true),
    sessions: () => go("/sessions"),
    find: () => /** @type {HTMLElement | null} */ (document.querySelector(".find input"))?.focus(),
  });
  return html`
    <a class="skip" href="#content">Skip to the content</a>
    <header class="bar">
      <a class="brand" href="/sessions"><i aria-hidden="true"></i>otel-sessions</a>
      <nav aria-label="Pages">${PAGES.map(([href, word, page]) =>
        html`<a href=${href} aria-current=${isWithin(page) ? "page" : undefined}>${word}</a>`
      )}</nav>
      <${Find} />
      <${Health} />
      <${ThemeSwitch} />
      <button class="icon" aria-label="Keyboard help" title="Keyboard help (?)" onClick=${() => (helpOpen
        .value = true)}>?</button>
    </header>
    <div id="content" tabindex="-1">
      <${Page} />
    </div>
    <${Cut} />
    <${Help} />
  `;
}

/** @param {string} page */
function isWithin(page) {
  const at = place.value.page;
  return at === page || (page === "sessions" && (at === "session" || at === "span"));
}

function Page() {
  const at = place.value;
  if (at.page === "sessions") return html`<${SessionsPage} />`;
  if (at.page === "session") return html`<${SessionPage} key=${at.id} id=${at.id} />`;
  if (at.page === "span") return html`<${SpanPage} key=${at.span} trace=${at.trace} span=${at.span} />`;
  if (at.page === "search") return html`<${SearchPage} />`;
  if (at.page === "status") return html`<${StatusPage} />`;
  return html`
    <main>
      <div class="card empty">
        <h2>There is no such page</h2>
        <p><a class="link" href="/sessions">All sessions</a></p>
      </div>
    </main>
  `;
}

/** Whether what is shown is live, in the bar. */
function Health() {
  const { state, since } = connection.value;
  if (state === "cut") {
    return html`<span class="health cut">not live since ${clock(since).slice(0, 5)}</span>`;
  }
  if (state === "live") return html`<span class="health live">live</span>`;
  return html`<span class="health">connecting</span>`;
}

/** The banner of a cut stream; it lies over the page, so that nothing moves. */
function Cut() {
  const { state, since, retryAt } = connection.value;
  const left = useSignal(0);
  useEffect(() => {
    if (state !== "cut") return;
    const count = () => (left.value = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)));
    count();
    const timer = setInterval(count, 500);
    return () => clearInterval(timer);
  }, [state, retryAt]);
  if (state !== "cut") return html`<div role="status" class="visually-hidden"></div>`;
  return html`
    <div role="status" class="banner"><i aria-hidden="true">◌</i>
      <span><b>Not live since ${clock(since).slice(0, 5)}</b>, retrying<span aria-hidden="true">${left.value
        ? ` in ${left.value} s`
        : "…"}</span></span>
      <button class="button" onClick=${() => stream.retry()}>Retry now</button>
    </div>
  `;
}

startTheme();
startLive();
startNav();
startKeys();
startBook();
const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
