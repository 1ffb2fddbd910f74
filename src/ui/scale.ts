/** Linear scales, round tick values and lines for the charts; Heckbert's "nice numbers" (Graphics Gems, 1990). Pure. */

export interface Scale {
  /** From a value to pixels. */
  at(value: number): number;
  /** From pixels to a value. */
  inverse(pixel: number): number;
}

/** Maps [from, to] onto [start, end] pixels; an empty range maps to the middle. */
export function linear({ from, to, start, end }: { from: number; to: number; start: number; end: number }): Scale {
  const span = to - from;
  return {
    at: (value) => (span === 0 ? (start + end) / 2 : start + ((value - from) / span) * (end - start)),
    inverse: (pixel) => (end === start ? from : from + ((pixel - start) / (end - start)) * span),
  };
}

/** About `count` round values (1, 2 or 5 times a power of ten apart) inside [from, to]; whole numbers where `whole`. */
export function ticks(from: number, to: number, count: number, whole = false): number[] {
  if (!(to > from) || count < 1) {
    return [from];
  }
  const rough = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const fraction = rough / power;
  let step = (fraction < 1.5 ? 1 : fraction < 3 ? 2 : fraction < 7 ? 5 : 10) * power;
  if (whole) {
    step = Math.max(1, step);
  }
  const values: number[] = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i += 1) {
    values.push(Number((i * step).toPrecision(12)));
  }
  return values;
}

/** Range of the values, widened by `pad` of its size on both sides; a single value gets room around it. */
export function extent(values: readonly number[], pad: number): { from: number; to: number } {
  let from = Number.POSITIVE_INFINITY;
  let to = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (Number.isFinite(value)) {
      from = Math.min(from, value);
      to = Math.max(to, value);
    }
  }
  if (from > to) {
    return { from: 0, to: 1 };
  }
  const room = to > from ? (to - from) * pad : Math.max(Math.abs(to) * pad, 0.1);
  return { from: from - room, to: to + room };
}

/**
 * The path of a line over `values` in a box, from 0 at its floor to the largest at its top. Where there are more values than units
 * of width each unit shows its largest; what is no number counts as 0.
 */
export function linePath(values: readonly number[], { width, height }: { width: number; height: number }): string {
  const heights = largest(values, width);
  const top = heights.reduce((most, value) => Math.max(most, value), 0);
  const y = (value: number): string => (top === 0 ? height : height - (value / top) * height).toFixed(1);
  const x = (i: number): string => (heights.length < 2 ? 0 : (i * width) / (heights.length - 1)).toFixed(1);
  const points = heights.map((value, i) => `${i === 0 ? "M" : "L"}${x(i)} ${y(value)}`);
  return heights.length === 1 ? `${points.join("")}H${width}` : points.join("");
}

/** The largest of each of at most `count` equal parts. */
function largest(values: readonly number[], count: number): number[] {
  const parts = Math.min(count, values.length);
  const tops = Array.from({ length: parts }, () => 0);
  for (const [i, value] of values.entries()) {
    const part = Math.floor((i * parts) / values.length);
    tops[part] = Math.max(tops[part] as number, Number.isFinite(value) ? value : 0);
  }
  return tops;
}
