/**
 * All spans of a session on one canvas: the only thing here that is painted, not built of elements.
 *
 * @import { Table } from "./rows.js"
 * @import { Scale } from "./scale.js"
 */
import { html, useEffect, useRef } from "../vendor/preact-11.2.0.js";
import { CATEGORIES, kindClass } from "./format.js";
import { Flag } from "./flags.js";
import { endOf } from "./scale.js";
import { colours, painted } from "./theme.js";

const HEIGHT = 40; // px
const AT_MOST_EVERY = 250; // ms

/**
 * Paint every row as a line; errors last, so that none is hidden.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Table} table
 * @param {Scale} scale
 * @param {number} openUntil
 * @param {{ width: number, ratio: number }} size
 */
function paint(context, table, scale, openUntil, { width, ratio }) {
  const palette = colours([...CATEGORIES.map((c) => `k-${c}`), "k-bad"]);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, HEIGHT);
  const n = table.order.length;
  const line = Math.max(1, Math.min(4, (HEIGHT - 4) / n));
  /** @param {number} row @param {number} position @param {string} colour @param {number} [least] */
  const bar = (row, position, colour, least = 1) => {
    const x = scale.at(table.start[row]) * width;
    const w = Math.max(least, scale.at(endOf(table, row, openUntil)) * width - x);
    context.fillStyle = colour;
    context.fillRect(x, 2 + (position / n) * (HEIGHT - 4), w, Math.max(least, line));
  };
  table.order.forEach((row, i) => {
    if (!table.is(row, Flag.PLACEHOLDER)) {
      bar(row, i, palette[kindClass(table.categoryOf(row))]);
    }
  });
  table.order.forEach((row, i) => table.failed(row) && bar(row, i, palette["k-bad"], 2));
}

/**
 * The map, with the window that the waterfall shows; drag to choose another, click twice for all.
 *
 * @param {{ table: Table, version: number, whole: Scale, view: [number, number], openUntil: number,
 *   choose: (from: number, to: number) => void, fit: () => void }} props
 */
export function Minimap({ table, version, whole, view, openUntil, choose, fit }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const last = useRef({ at: 0, timer: 0 });
  const from = useRef(-1);
  const latest = useRef(() => {});
  latest.current = () => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context) return;
    const ratio = devicePixelRatio || 1;
    const width = element.clientWidth;
    element.width = Math.round(width * ratio);
    element.height = HEIGHT * ratio;
    paint(context, table, whole, openUntil, { width, ratio });
    last.current.at = performance.now();
  };
  const soon = () => {
    clearTimeout(last.current.timer);
    const wait = Math.max(0, AT_MOST_EVERY - (performance.now() - last.current.at));
    last.current.timer = setTimeout(() => latest.current(), wait);
  };
  useEffect(() => {
    soon();
  }, [version, whole, painted.value]);
  useEffect(() => {
    const watch = new ResizeObserver(soon);
    if (canvas.current) watch.observe(canvas.current);
    return () => {
      watch.disconnect();
      clearTimeout(last.current.timer);
    };
  }, []);
  /** @param {PointerEvent} event */
  const place = (event) => {
    const box = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  };
  /** @param {PointerEvent} event */
  const drag = (event) => {
    if (from.current < 0) return;
    const [a, b] = [from.current, place(event)].sort((x, y) => x - y);
    if (b - a > 0.005) choose(whole.timeAt(a), whole.timeAt(b));
  };
  const left = Math.max(0, whole.at(view[0]));
  const right = Math.min(1, whole.at(view[1]));
  const zoomed = left > 0.001 || right < 0.999;
  return html`
    <div class="minimap" title="Drag to zoom, double click for all" aria-hidden="true" onDblClick=${fit}
      onPointerDown=${(/** @type {PointerEvent} */ event) => {
        from.current = place(event);
        /** @type {HTMLElement} */ (event.currentTarget).setPointerCapture(event.pointerId);
      }} onPointerMove=${drag} onPointerUp=${(/** @type {PointerEvent} */ event) => {
        drag(event);
        from.current = -1;
      }}>
      <canvas ref=${canvas}></canvas>
      ${zoomed
        ? html`
          <i class="shade" style=${{ insetInlineStart: "0", inlineSize: `${left * 100}%` }}></i>
          <i class="shade" style=${{ insetInlineStart: `${right * 100}%`, insetInlineEnd: "0" }}></i>
        `
        : null}
    </div>
  `;
}
