/**
 * Time to place: the extent of a session, its idle gaps, and the mapping of both to 0..1. Pure.
 *
 * @import { Table } from "./rows.js"
 */
import { Flag } from "./flags.js";
import { tickStep } from "./format.js";

/**
 * Where a row's bar ends: its end, or for an open span the last moment at which it was known to be open.
 *
 * @param {Table} table
 * @param {number} row
 * @param {number} openUntil
 */
export function endOf(table, row, openUntil) {
  const duration = table.duration[row];
  return table.start[row] + (Number.isNaN(duration) ? Math.max(0, openUntil - table.start[row]) : duration);
}

/** First start and last end of all rows. @param {Table} table @param {number} openUntil @returns {[number, number]} */
export function extent(table, openUntil) {
  let from = Infinity;
  let to = -Infinity;
  for (const row of table.order) {
    from = Math.min(from, table.start[row]);
    to = Math.max(to, table.is(row, Flag.PLACEHOLDER) ? table.start[row] : endOf(table, row, openUntil));
  }
  return from <= to ? [from, to > from ? to : from + 1] : [0, 1];
}

/**
 * Stretches of at least `share` of the whole in which no leaf of the tree was at work.
 *
 * @param {Table} table
 * @param {number} openUntil
 * @param {[number, number]} range
 * @param {number} share
 * @returns {[number, number][]}
 */
export function idleGaps(table, openUntil, range, share) {
  /** @type {[number, number][]} */
  const gaps = [];
  const least = (range[1] - range[0]) * share;
  let busyTo = range[0];
  for (const row of table.byStart) {
    if (table.children[row] > 0 || table.start[row] === Infinity) continue;
    if (table.start[row] - busyTo >= least) gaps.push([busyTo, table.start[row]]);
    busyTo = Math.max(busyTo, endOf(table, row, openUntil));
  }
  if (range[1] - busyTo >= least) gaps.push([busyTo, range[1]]);
  return gaps;
}

/**
 * A mapping of ns offsets to 0..1 over a window; gaps inside it are squeezed to a sliver each.
 */
export class Scale {
  /**
   * @param {number} from
   * @param {number} to
   * @param {[number, number][]} [gaps]
   */
  constructor(from, to, gaps = []) {
    this.from = from;
    this.to = to;
    this.gaps = gaps.map(([a, b]) => /** @type {[number, number]} */ ([Math.max(a, from), Math.min(b, to)]))
      .filter(([a, b]) => b > a);
    const squeezed = this.gaps.reduce((sum, [a, b]) => sum + b - a, 0);
    const sliver = this.gaps.length ? Math.min(0.02, 0.4 / this.gaps.length) : 0;
    const rest = 1 - sliver * this.gaps.length;
    /** @type {number[]} */ this.times = [from];
    /** @type {number[]} */ this.places = [0];
    for (const [a, b] of this.gaps) {
      this.#to(a, ((a - this.times[this.times.length - 1]) / (to - from - squeezed || 1)) * rest);
      this.#to(b, sliver);
    }
    this.#to(to, 1 - this.places[this.places.length - 1]);
  }

  /** @param {number} time @param {number} width */
  #to(time, width) {
    this.places.push(this.places[this.places.length - 1] + width);
    this.times.push(time);
  }

  /** Place of a time, outside the window too. @param {number} time */
  at(time) {
    return between(this.times, this.places, time);
  }

  /** Time at a place. @param {number} place */
  timeAt(place) {
    return between(this.places, this.times, place);
  }

  /** Round times to label, as offsets from `zero`. @param {number} zero @param {number} most */
  ticks(zero, most) {
    const squeezed = this.gaps.reduce((sum, [a, b]) => sum + b - a, 0);
    const step = tickStep(this.to - this.from - squeezed, most);
    const ticks = [];
    for (let t = Math.ceil((this.from - zero) / step) * step; zero + t <= this.to; t += step) {
      if (!this.gaps.some(([a, b]) => zero + t > a && zero + t < b)) ticks.push(t);
      else t = (Math.ceil((this.gapEnd(zero + t) - zero) / step) - 1) * step;
    }
    return ticks;
  }

  /** @param {number} time */
  gapEnd(time) {
    return this.gaps.find(([a, b]) => time > a && time < b)?.[1] ?? time;
  }
}

/** @param {number[]} xs @param {number[]} ys @param {number} x */
function between(xs, ys, x) {
  let i = 1;
  while (i < xs.length - 1 && x > xs[i]) i++;
  const width = xs[i] - xs[i - 1];
  return width > 0 ? ys[i - 1] + ((x - xs[i - 1]) / width) * (ys[i] - ys[i - 1]) : ys[i];
}
