/**
 * The box in the bar: it filters, finds or searches, completes what is typed, and says below itself what is
 * wrong with it.
 *
 * @import { Completion, FilterAnswer, FilterField, Problem } from "./types.d.ts"
 */
import { html, signal, useEffect, useRef, useSignal } from "../vendor/preact-11.2.0.js";
import { get, problemFrom, url } from "./api.js";
import { around, complete } from "./filter.js";
import { act } from "./keys.js";
import { adjust, go } from "./nav.js";
import { Text } from "./parts.js";
import { place, query, search } from "./state.js";

const TYPING_PAUSE = 250; // ms
const FIELDS_FOR = 30_000; // ms: then the values that sessions have are asked for again

/** What the box does on each page: the parameter it writes, what it says, and whether it takes a filter. @type {Record<string, { param: string, hint: string, filters: boolean }>} */
const FINDS = {
  sessions: { param: "q", hint: "Filter: words, state:lost, tokens>10k, tool:…", filters: true },
  session: { param: "find", hint: "Find a span by name, model, tool, id", filters: false },
  search: { param: "q", hint: "Search the text of every span and message", filters: true },
};
const ELSEWHERE = { param: "", hint: "Search all sessions", filters: false };

/** What the server said of a filter, null where it is right. */
const wrong = signal(/** @type {{ problem: Problem, text: string, alone: boolean } | null} */ (null));

/**
 * Show a problem below the box if it is one of the filter there, and take away what was shown if not.
 *
 * @param {Problem | null} problem
 * @param {string} text
 * @param {boolean} alone the page has nothing else to show: it tells the problem itself, by a FilterFailure
 * @returns {boolean} whether it is
 */
export function isOfFilter(problem, text, alone = false) {
  const fault = problem?.parameter === "q" && problem.position !== undefined;
  wrong.value = fault ? { problem, text, alone } : null;
  return fault;
}

const fields = signal(/** @type {FilterField[]} */ ([]));
let fieldsAt = 0;

async function learnFields() {
  if (Date.now() - fieldsAt < FIELDS_FOR) return;
  fieldsAt = Date.now();
  try {
    fields.value = /** @type {FilterAnswer} */ (await get(url(["filters"]))).fields;
  } catch (error) {
    problemFrom(error); // without it there is nothing to complete; the page itself says what is wrong
    fieldsAt = 0;
  }
}

/** The box. */
export function Find() {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const timer = useRef(0);
  const page = place.value.page;
  const { param, hint, filters } = FINDS[page] ?? ELSEWHERE;
  const value = param ? query.value.get(param) ?? "" : "";
  const write = () => {
    clearTimeout(timer.current);
    if (param && input.current) adjust({ [param]: input.current.value.trim() });
  };
  const { offer, chosen, ...completion } = useCompletion(input, filters, write);
  useEffect(() => {
    if (input.current && document.activeElement !== input.current) input.current.value = value;
  }, [value, page]);
  useEffect(() => {
    completion.close();
    wrong.value = null;
  }, [page]);
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    if (event.isComposing) return; // Enter that only chooses a word of an input method
    if (completion.takes(event.key)) return event.preventDefault();
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault(); // Escape leaves the box: it must not empty it, as browsers have it
    if (event.key === "Escape") return input.current?.blur();
    completion.close();
    write();
    if (!param) go(`/search${search({ q: input.current?.value })}`);
    else if (page === "session") {
      input.current?.blur();
      const action = event.shiftKey ? "previousHit" : "nextHit";
      requestAnimationFrame(() => act(action)); // once the hits of this text are known
    }
  };
  const onInput = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(write, TYPING_PAUSE);
    completion.suggest(false);
  };
  const fault = !offer && filters && wrong.value !== null;
  return html`
    <div class="finder">
      <label class=${`find ${fault ? "wrong" : ""}`}><span aria-hidden="true">⌕</span>
        <input ref=${input} type="search" aria-label=${hint} placeholder=${hint} autocomplete="off" spellcheck=${false}
          enterkeyhint="search" aria-autocomplete=${filters ? "list" : undefined}
          aria-controls=${offer ? "completions" : undefined}
          aria-activedescendant=${offer && chosen >= 0 ? `completion-${chosen}` : undefined}
          aria-invalid=${fault ? "true" : undefined} aria-describedby=${fault ? "filter-fault" : undefined}
          onKeyDown=${onKeyDown} onInput=${onInput} onFocus=${completion.learn} onBlur=${completion.close} />
        <kbd aria-hidden="true">/</kbd></label>
      ${offer
        ? html`<${Options} options=${offer.options} chosen=${chosen} accept=${completion.accept} />`
        : null}
      ${fault && !wrong.value?.alone
        ? html`
          <div class="fault" id="filter-fault" role="alert">
            <${Fault} ...${wrong.value} />
          </div>
        `
        : null}
    </div>
  `;
}

/**
 * What could stand at the caret of a box, chosen by keys or pointer.
 *
 * @param {{ current: HTMLInputElement | null }} input
 * @param {boolean} filters whether the box takes a filter now
 * @param {() => void} write take over what the box holds
 */
function useCompletion(input, filters, write) {
  const offer = useSignal(/** @type {{ from: number, to: number, options: Completion[] } | null} */ (null));
  const chosen = useSignal(-1);
  /** @param {boolean} all also where nothing is typed yet */
  const suggest = (all) => {
    const box = input.current;
    if (!filters || !box || document.activeElement !== box) return;
    const caret = box.selectionStart ?? box.value.length;
    const found = complete(box.value, caret, fields.value);
    const begun = found.from < caret || /[:=<>,]$/.test(box.value.slice(0, found.from));
    offer.value = found.options.length && (all || begun) ? found : null;
    chosen.value = -1;
  };
  /** @param {Completion} option */
  const accept = (option) => {
    const [box, found] = [input.current, offer.value];
    if (!box || !found) return;
    box.setRangeText(option.text + (option.whole ? " " : ""), found.from, found.to, "end");
    box.focus();
    suggest(!option.whole);
    if (option.whole) write();
  };
  /** @param {number} step @returns {boolean} */
  const move = (step) => {
    if (!offer.value) suggest(true);
    const count = offer.value?.options.length ?? 0;
    const from = chosen.value < 0 && step < 0 ? 0 : chosen.value;
    if (count) chosen.value = (from + step + count) % count;
    return count > 0;
  };
  /** @param {string} key @returns {boolean} whether the options took it */
  const takes = (key) => {
    if (filters && key === "ArrowDown") return move(1);
    if (filters && key === "ArrowUp") return move(-1);
    if (!offer.value) return false;
    if (key === "Escape") offer.value = null;
    else if ((key === "Enter" || key === "Tab") && chosen.value >= 0) {
      accept(offer.value.options[chosen.value]);
    } else return false;
    return true;
  };
  return {
    offer: offer.value,
    chosen: chosen.value,
    suggest,
    accept,
    takes,
    close: () => void (offer.value = null),
    learn: () => void (filters && learnFields().then(() => suggest(false))),
  };
}

/** @param {{ options: Completion[], chosen: number, accept: (option: Completion) => void }} props */
function Options({ options, chosen, accept }) {
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    list.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  return html`
    <ul class="completions" id="completions" role="listbox" aria-label="What could stand here" ref=${list}
      onMouseDown=${(/** @type {MouseEvent} */ event) => event.preventDefault()}>
      ${options.map((option, no) =>
        html`
          <li key=${option.label} id=${`completion-${no}`} role="option" aria-selected=${no === chosen
            ? "true"
            : "false"}
            onClick=${() => accept(option)}><b class="mono"><${Text} value=${option
              .label} /></b>${option.about
              ? html`<span class="muted"><${Text} value=${option.about} /></span>`
              : null}</li>
        `
      )}
    </ul>
  `;
}

/** What is wrong, at the word that is. @param {{ problem: Problem, text: string }} props */
function Fault({ problem, text }) {
  const [before, word, after] = around(text, problem.position ?? 0, problem.word ?? "");
  const allowed = Array.isArray(problem.allowed) ? problem.allowed.join(" · ") : "";
  return html`
    <p class="mono"><bdi>${before}<mark>${word || "…"}</mark>${after}</bdi></p>
    <p>
      <${Text} value=${problem.detail ?? problem.title} />
    </p>
    ${allowed && !problem.detail?.includes(allowed.split(" · ")[0])
      ? html`
        <p class="muted mono">
          <${Text} value=${allowed} />
        </p>
      `
      : null}
  `;
}

/** What is wrong with the filter of a page that has nothing else to show, and the way on. */
export function FilterFailure() {
  return html`
    <div class="failure" id="filter-fault" role="alert">
      <h2><i aria-hidden="true">!</i> This filter is not understood</h2>
      <${Fault} ...${wrong.value} />
      <button class="button" onClick=${() => adjust({ q: null }, { push: true })}>Clear the filter</button>
    </div>
  `;
}

/** Whether that is all that a page can show. */
export function hasFilterFailure() {
  return wrong.value?.alone === true;
}
