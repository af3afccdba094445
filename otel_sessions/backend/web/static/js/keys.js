/** The keyboard: one table for the handler and for the help that "?" shows. */
import { html, signal, useEffect, useLayoutEffect, useRef } from "../vendor/preact-11.2.0.js";

/**
 * @typedef {object} Key
 * @property {string} action what a page registers a function for
 * @property {string[]} keys values of KeyboardEvent.key; two letters with a space are typed one after the other
 * @property {string} does
 */

/** @type {{ title: string, keys: Key[] }[]} */
export const KEYS = [
  {
    title: "Rows",
    keys: [
      { action: "next", keys: ["j", "ArrowDown"], does: "Next row" },
      { action: "previous", keys: ["k", "ArrowUp"], does: "Previous row" },
      { action: "collapse", keys: ["ArrowLeft", "h"], does: "Collapse, or go to the parent" },
      { action: "expand", keys: ["ArrowRight", "l"], does: "Expand, or go to the first child" },
      { action: "first", keys: ["Home"], does: "First row" },
      { action: "last", keys: ["End"], does: "Last row" },
      { action: "pageDown", keys: ["PageDown"], does: "A page down" },
      { action: "pageUp", keys: ["PageUp"], does: "A page up" },
      { action: "open", keys: ["Enter"], does: "Open the detail" },
      { action: "back", keys: ["Escape"], does: "Close the detail, clear the selection" },
      { action: "collapseAll", keys: ["["], does: "Collapse all" },
      { action: "expandAll", keys: ["]"], does: "Expand all" },
    ],
  },
  {
    title: "Find",
    keys: [
      { action: "find", keys: ["/"], does: "Find or filter" },
      { action: "nextHit", keys: ["n"], does: "Next hit" },
      { action: "previousHit", keys: ["N"], does: "Previous hit" },
      { action: "nextError", keys: ["e"], does: "Next error" },
    ],
  },
  {
    title: "Time",
    keys: [
      { action: "fit", keys: ["f"], does: "Fit everything" },
      { action: "zoomIn", keys: ["+", "="], does: "Zoom in on the selected span" },
      { action: "zoomOut", keys: ["-"], does: "Zoom out" },
    ],
  },
  {
    title: "Page",
    keys: [
      { action: "sessions", keys: ["g s"], does: "Go to the sessions" },
      { action: "news", keys: ["r"], does: "Show what is new" },
      { action: "help", keys: ["?"], does: "This help" },
    ],
  },
];

/** @type {Map<string, string>} */
const ACTIONS = new Map(
  KEYS.flatMap((group) => group.keys.flatMap((k) => k.keys.map((key) => [key, k.action]))),
);
const PREFIXES = new Set([...ACTIONS.keys()].filter((key) => key.includes(" ")).map((key) => key[0]));
const SEQUENCE_MS = 1200;

/** @typedef {Record<string, () => unknown>} Actions */

/** Later registrations win: a page over the bar, a dialog over the page. @type {Actions[]} */
const stack = [];
let prefix = "";
let prefixAt = 0;

/** Answer keys while the component is mounted. @param {Actions} actions */
export function useKeys(actions) {
  const current = useRef(actions);
  current.current = actions;
  useLayoutEffect(() => {
    const names = Object.keys(actions);
    /** @type {Actions} */
    const entry = Object.fromEntries(names.map((name) => [name, () => current.current[name]()]));
    stack.push(entry);
    return () => void stack.splice(stack.indexOf(entry), 1);
  }, []);
}

/** The action a key stands for now, or undefined; keeps the first half of two-key sequences. @param {string} key @param {number} at */
function actionFor(key, at) {
  const both = prefix && at - prefixAt < SEQUENCE_MS ? `${prefix} ${key}` : "";
  prefix = "";
  if (both && ACTIONS.has(both)) return ACTIONS.get(both);
  if (PREFIXES.has(key)) {
    prefix = key;
    prefixAt = at;
    return undefined;
  }
  return ACTIONS.get(key);
}

/** @param {KeyboardEvent} event */
function handle(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target instanceof Element ? event.target : null;
  if (
    target?.closest("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")
  ) return;
  if (event.key === "Enter" && target?.closest("a, button, summary")) return;
  if (target?.closest("[role=tablist]") && event.key.startsWith("Arrow")) return;
  const action = actionFor(event.key, event.timeStamp);
  if (action && act(action)) event.preventDefault();
}

/** Do what a key would; false where nothing on the page answers to it now. @param {string} action */
export function act(action) {
  const entry = stack.findLast((actions) => action in actions);
  entry?.[action]();
  return entry !== undefined;
}

export function start() {
  document.addEventListener("keydown", handle);
}

export const helpOpen = signal(false);

/** @type {Record<string, string>} */
const CAPS = {
  ArrowDown: "↓",
  ArrowUp: "↑",
  ArrowLeft: "←",
  ArrowRight: "→",
  Escape: "Esc",
  PageDown: "PgDn",
  PageUp: "PgUp",
};

/** @param {{ keys: string[] }} props */
function Caps({ keys }) {
  return keys.map((key) =>
    html`<span class="caps">${key.split(" ").map((part) => html`<kbd>${CAPS[part] ?? part}</kbd>`)}</span>`
  );
}

/** The help dialog; native, so that Esc and focus behave. */
export function Help() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const open = helpOpen.value;
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  const close = () => (helpOpen.value = false);
  return html`
    <dialog ref=${dialog} class="help" aria-label="Keyboard" onClose=${close} onClick=${(
      /** @type {MouseEvent} */ event,
    ) => event.target === dialog.current && close()}>
      <div class="help-body">
        <header><h2>Keyboard</h2><button class="icon" aria-label="Close" onClick=${close}>✕</button></header>
        <div class="help-groups">
          ${KEYS.map((group) =>
            html`
              <section>
                <h3>${group.title}</h3>
                <dl>${group.keys.map((k) =>
                  html`
                    <dt>
                      <${Caps} keys=${k.keys} />
                    </dt>
                    <dd>${k.does}</dd>
                  `
                )}</dl>
              </section>
            `
          )}
        </div>
      </div>
    </dialog>
  `;
}
