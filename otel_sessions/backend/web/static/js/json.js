/**
 * JSON laid out for reading: short things on one line, long ones opened up. Pure.
 *
 * It works on the tokens of the text, not on parsed values: a number keeps every digit and a key that
 * occurs twice is shown twice, which JSON.parse would not do.
 */

/** @typedef {string | { open: string, close: string, items: { key: string, value: Node }[] }} Node */

const TOKENS = /"(?:[^"\\]|\\.)*"|[[\]{}:,]|[^\s[\]{}:,"]+/g;
const WIDTH = 76; // characters of a line

/**
 * The text laid out, or null where it is no JSON object or array.
 *
 * @param {string} text
 */
export function layout(text) {
  const first = text.trimStart()[0];
  if (first !== "{" && first !== "[") return null;
  try {
    JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null; // cut short, or only looks like it
    throw error;
  }
  const tokens = text.match(TOKENS) ?? [];
  return written(read(tokens, { at: 0 }), 0);
}

/** @param {string[]} tokens @param {{ at: number }} place @returns {Node} */
function read(tokens, place) {
  const token = tokens[place.at++];
  if (token !== "{" && token !== "[") return word(token);
  const close = token === "{" ? "}" : "]";
  const items = [];
  while (tokens[place.at] !== close) {
    if (tokens[place.at] === ",") place.at++;
    let key = "";
    if (token === "{") {
      key = `${word(tokens[place.at])}: `;
      place.at += 2;
    }
    items.push({ key, value: read(tokens, place) });
  }
  place.at++;
  return { open: token, close, items };
}

/** A string with its letters instead of their \u numbers; anything else as it came. @param {string} token */
function word(token) {
  return token[0] === '"' ? JSON.stringify(JSON.parse(token)) : token;
}

/** @param {Node} node @param {number} indent */
function written(node, indent) {
  const line = flat(node, WIDTH - indent);
  if (line !== null || typeof node === "string") return line ?? /** @type {string} */ (node);
  const inner = " ".repeat(indent + 2);
  /** @type {string[]} */
  const lines = node.items.map(({ key, value }) => inner + key + written(value, indent + 2));
  return `${node.open}\n${lines.join(",\n")}\n${" ".repeat(indent)}${node.close}`;
}

/** On one line, or null where that is too long. @param {Node} node @param {number} room @returns {string | null} */
function flat(node, room) {
  if (typeof node === "string") return node.length <= room ? node : null;
  const parts = [];
  let used = 2;
  for (const { key, value } of node.items) {
    const part = flat(value, room - used);
    if (part === null) return null;
    parts.push(key + part);
    used += key.length + part.length + 2;
    if (used > room + 2) return null;
  }
  return node.open + parts.join(", ") + node.close;
}
