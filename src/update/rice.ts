/**
 * The Rice parameter of a chunk. With parameter r, n gaps cost n·(r + 1) + Σ (gap >> r) bits. From r to r + 1 the cost
 * changes by n − Σ ceil((gap >> r) / 2), and that sum never grows with r: the cost is convex, so the first r whose
 * successor is not cheaper is the best one, and whether an r is the best can be seen from its two neighbours.
 */
import { RICE_MAX } from "./format.ts";

/** The smallest parameter that codes `count` (≥ 1) gaps in the fewest bits. */
export function bestRice(gaps: Uint16Array, count: number): number {
  let rice = 0;
  while (rice < RICE_MAX && savedAbove(gaps, count, rice) > count) {
    rice += 1;
  }
  return rice;
}

/** Whether `rice` is what `bestRice` returns. */
export function isBestRice(gaps: Uint16Array, count: number, rice: number): boolean {
  return (
    rice <= RICE_MAX &&
    (rice === 0 || savedAbove(gaps, count, rice - 1) > count) &&
    (rice === RICE_MAX || savedAbove(gaps, count, rice) <= count)
  );
}

/** Unary bits that parameter `rice` + 1 saves over `rice`. */
function savedAbove(gaps: Uint16Array, count: number, rice: number): number {
  let saved = 0;
  for (let i = 0; i < count; i += 1) {
    saved += (((gaps[i] as number) >>> rice) + 1) >>> 1;
  }
  return saved;
}
