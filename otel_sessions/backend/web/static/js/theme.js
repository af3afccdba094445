/** Light, dark, or as the system has it; kept in this browser. Colours for canvases are read from here. */
import { html, signal } from "../vendor/preact-11.2.0.js";

const KEY = "otel-sessions.theme";
/** @type {Record<string, { next: string, glyph: string, word: string }>} */
const THEMES = {
  system: { next: "light", glyph: "◐", word: "Theme: as the system" },
  light: { next: "dark", glyph: "○", word: "Theme: light" },
  dark: { next: "system", glyph: "●", word: "Theme: dark" },
};

const chosen = signal("system");
/** Grows when colours changed; whoever paints reads it. */
export const painted = signal(0);

export function start() {
  const kept = localStorage.getItem(KEY) ?? "system";
  choose(Object.hasOwn(THEMES, kept) ? kept : "system");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => void painted.value++);
}

/** @param {string} theme */
function choose(theme) {
  chosen.value = theme;
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  localStorage.setItem(KEY, theme);
  painted.value++;
}

export function ThemeSwitch() {
  const { next, glyph, word } = THEMES[chosen.value];
  return html`<button class="icon theme" aria-label=${word} title=${word} onClick=${() =>
    choose(next)}>${glyph}</button>`;
}

/** The colours that classes have just now, for a canvas. @param {string[]} classes @returns {Record<string, string>} */
export function colours(classes) {
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);
  const found = Object.fromEntries(classes.map((name) => {
    probe.className = name;
    return [name, getComputedStyle(probe).backgroundColor];
  }));
  probe.remove();
  return found;
}
