/**
 * The language of filters as far as a page needs it: what could stand at the caret. No DOM here; what is a
 * filter and what is not only the server decides.
 *
 * @import { Completion, FilterField } from "./types.d.ts"
 */

const CONDITION = /^(-?)([\p{L}_][\p{L}\p{N}_.]*)(!=|:?[<>]=?|[:=])(.*)$/su;
const NAME = /^(-?)([\p{L}_][\p{L}\p{N}_.]*)?$/su;
const MOST = 12; // options shown at once
const UNKNOWN = "unknown";

/** Where the word at the caret begins and ends; white space in quotes does not end it. @param {string} text @param {number} caret */
export function wordAt(text, caret) {
  let from = 0;
  let quoted = false;
  for (let i = 0; i < caret; i++) {
    if (text[i] === '"' && (quoted || i === from || /[:=<>,]/.test(text[i - 1]))) quoted = !quoted;
    else if (!quoted && /\s/.test(text[i])) from = i + 1;
  }
  const rest = text.slice(caret).search(quoted ? /"|$/ : /\s|$/);
  return { from, to: caret + rest + (quoted && text[caret + rest] === '"' ? 1 : 0) };
}

/**
 * What could stand where the caret is: fields, or values of the field before it.
 *
 * @param {string} text
 * @param {number} caret
 * @param {FilterField[]} fields
 * @returns {{ from: number, to: number, options: Completion[] }} `from` and `to` are what an option replaces
 */
export function complete(text, caret, fields) {
  const { from, to } = wordAt(text, caret);
  const typed = text.slice(from, caret);
  const condition = CONDITION.exec(typed);
  if (condition) return values(typed, from, to, condition, fields);
  const name = NAME.exec(typed);
  if (!name) return { from, to, options: [] };
  const [, minus, letters = ""] = name;
  return { from, to, options: names(minus, letters.toLowerCase(), fields) };
}

/** @param {string} minus @param {string} letters @param {FilterField[]} fields @returns {Completion[]} */
function names(minus, letters, fields) {
  const begin = fields.filter((field) => field.name.startsWith(letters));
  const hold = letters
    ? fields.filter((field) => !begin.includes(field) && field.name.includes(letters))
    : [];
  return [...begin, ...hold].slice(0, letters ? MOST : undefined).map((field) => ({
    label: field.name + field.operators[0],
    text: minus + field.name + field.operators[0],
    about: field.about,
    whole: false,
  }));
}

/** @param {string} typed @param {number} from @param {number} to @param {RegExpExecArray} condition @param {FilterField[]} fields */
function values(typed, from, to, condition, fields) {
  const [, , name, sign, list] = condition;
  const field = fields.find((one) => one.name === name.toLowerCase());
  const last = list.match(/(?:"[^"]*$|[^,"]*$)/)?.[0] ?? "";
  const begin = from + typed.length - last.length;
  if (!field) return { from, to, options: [] };
  const wanted = last.replace(/^"/, "").toLowerCase();
  const nullable = field.nullable && !/[<>]/.test(sign) && UNKNOWN.startsWith(wanted);
  const known = field.values.filter((value) => value.toLowerCase().includes(wanted));
  if (wanted && known.some((value) => value.toLowerCase() === wanted)) {
    return { from: begin, to, options: [] };
  }
  const options = [...known].sort((a, b) => rank(a, wanted) - rank(b, wanted)).slice(0, MOST).map((
    value,
  ) => ({
    label: value,
    text: quoted(value),
    about: "",
    whole: true,
  }));
  if (nullable && wanted !== UNKNOWN) {
    options.push({ label: UNKNOWN, text: UNKNOWN, about: "where nobody told", whole: true });
  }
  return { from: begin, to, options };
}

/** Values that begin with what is typed come first. @param {string} value @param {string} wanted */
function rank(value, wanted) {
  return value.toLowerCase().startsWith(wanted) ? 0 : 1;
}

/** A value as the filter takes it. @param {string} value */
export function quoted(value) {
  return /^[^\s,"]+$/u.test(value) && value.toLowerCase() !== UNKNOWN
    ? value
    : `"${value.replaceAll('"', '\\"')}"`;
}

/** A text in three: before the word at fault, the word, and after; positions count code points. @param {string} text @param {number} position @param {string} word */
export function around(text, position, word) {
  const characters = [...text];
  const end = position + [...word].length;
  return [characters.slice(0, position), characters.slice(position, end), characters.slice(end)]
    .map((part) => part.join(""));
}
