/** The address bar: push to go somewhere, replace to adjust; scroll is kept with each entry of the history. */
import { batch } from "../vendor/preact-11.2.0.js";
import { changed, parsePlace, place, query } from "./state.js";

const ADJUST_DELAY = 150; // ms: browsers refuse more than some hundred changes of history in half a minute

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Read the address, follow the browser's Back, and take over plain clicks on links within the page. */
export function start() {
  history.scrollRestoration = "manual";
  read();
  addEventListener("popstate", () => {
    clearTimeout(timer);
    read();
    wantScroll = history.state?.scroll ?? 0;
    requestAnimationFrame(restoreScroll);
  });
  document.addEventListener("click", takeClick);
  addEventListener("scroll", () => remember({ scroll: scrollY }), { passive: true });
}

function read() {
  batch(() => {
    const next = parsePlace(location.pathname);
    if (JSON.stringify(next) !== JSON.stringify(place.peek())) place.value = next;
    if (location.search.slice(1) !== query.peek().toString()) {
      query.value = new URLSearchParams(location.search);
    }
  });
}

/** @param {MouseEvent} event */
function takeClick(event) {
  if (
    event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey ||
    event.altKey
  ) {
    return;
  }
  const anchor = event.target instanceof Element ? event.target.closest("a") : null;
  if (!anchor || anchor.target || anchor.hasAttribute("download") || anchor.origin !== location.origin) {
    return;
  }
  if (parsePlace(anchor.pathname).page === "unknown" || anchor.dataset.external !== undefined) return;
  event.preventDefault();
  go(anchor.href);
}

/** Go to another address within the page. @param {string} href */
export function go(href) {
  flush();
  const from = place.peek();
  history.pushState(null, "", href);
  read();
  if (JSON.stringify(from) !== JSON.stringify(place.peek())) scrollTo(0, 0);
}

/**
 * Change the query of this address; the change is seen at once, written to the history a little later.
 *
 * @param {Record<string, string | null>} changes
 * @param {{ push?: boolean }} [how]
 */
export function adjust(changes, how = {}) {
  const next = changed(query.peek(), changes);
  if (next.toString() === query.peek().toString()) return;
  if (how.push) {
    flush();
    history.pushState(null, "", address(next));
    query.value = next;
    return;
  }
  query.value = next;
  later();
}

/** Keep something small with this entry of the history: where it was scrolled to. @param {Record<string, number>} values */
export function remember(values) {
  Object.assign(kept, values);
  later();
}

/** What this entry of the history remembers. @param {string} name @returns {number | undefined} */
export function remembered(name) {
  return history.state?.[name];
}

/** @type {Record<string, number>} */
let kept = {};

/** @param {URLSearchParams} set */
function address(set) {
  const text = set.toString();
  return location.pathname + (text && `?${text}`);
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(flush, ADJUST_DELAY);
}

function flush() {
  clearTimeout(timer);
  history.replaceState({ ...history.state, ...kept }, "", address(query.peek()));
  kept = {};
}

let wantScroll = 0;

/** Scroll to where this entry was left; called again by a page whose content comes later. */
export function restoreScroll() {
  if (wantScroll > 0) scrollTo(0, wantScroll);
}

/** After a reload the page is as tall as before only once its data is there. */
export function restoreScrollAfterReload() {
  wantScroll = history.state?.scroll ?? 0;
  restoreScroll();
  wantScroll = 0;
}
