/**
 * Instructions that several ops are made of: matrix products, whose right operand is packed first and whose tiles pack their rows of
 * the left one, and norms.
 */
import * as code from "./assembly/opcodes.ts";
import type { Place } from "./layout.ts";
import type { Pen, Word } from "./pen.ts";

const PACK_ELEMENTS = 16_384;
/** With DEPTH_BLOCK a packed block of a is 72 KiB, which stays in every processor's second cache. */
const MATMUL_ROWS = 36;
const MATMUL_COLUMNS = 1024;
/** Tiles per thread that matmul aims at, so that a thread which was interrupted does not hold up the others. */
const TILES_PER_THREAD = 4;

export interface Operand {
  readonly place: Place;
  /** As it lies in memory. */
  readonly columns: number;
  readonly transposed: boolean;
}

/** Emits the packing of a right operand [k,n] to the beginning of the packed region. */
function emitPack(pen: Pen, { place, columns, transposed }: Operand, [k, n]: readonly [number, number]): void {
  const panels = Math.ceil(n / 8);
  const tilePanels = Math.min(panels, Math.max(2, Math.floor(PACK_ELEMENTS / (8 * k))));
  pen.emit(code.PACK, Math.ceil(panels / tilePanels), [
    place,
    { region: "packed", offset: 0 } as const,
    k,
    n,
    4 * columns,
    Number(transposed),
    tilePanels,
  ]);
  pen.need({ packed: 32 * k * panels });
}

interface Product {
  readonly a: Operand;
  readonly b: Operand;
  readonly out: Place;
  /** M, N and K. */
  readonly sizes: readonly [number, number, number];
  readonly add?: Word;
  readonly bias?: Word;
}

/** out [M,N] = opA(a) · opB(b) (+ add) (+ bias), through the packed region from its beginning on. */
export function emitProduct(pen: Pen, { a, b, out, sizes: [m, n, k], add = 0, bias = 0 }: Product): void {
  emitPack(pen, b, [k, n]);
  const { tileRows, tileColumns } = cutProduct(m, n, pen.threads);
  const across = Math.ceil(n / tileColumns);
  pen.emit(code.MATMUL, across * Math.ceil(m / tileRows), [
    a.place,
    { region: "packed", offset: 0 } as const,
    out,
    add,
    m,
    n,
    k,
    4 * a.columns,
    Number(a.transposed),
    tileRows,
    tileColumns,
    across,
    bias,
  ]);
  pen.need({ thread: code.EDGE_BYTES + 4 * tileRows * Math.min(k, code.DEPTH_BLOCK) });
}

/** Wide tiles, because each packs its rows of a again; narrower ones until every thread has a few. */
function cutProduct(m: number, n: number, threads: number): { tileRows: number; tileColumns: number } {
  let tileRows = Math.min(MATMUL_ROWS, Math.ceil(m / 4) * 4);
  let tileColumns = Math.min(MATMUL_COLUMNS, Math.ceil(n / 8) * 8);
  const few = (): boolean =>
    threads > 1 && Math.ceil(m / tileRows) * Math.ceil(n / tileColumns) < threads * TILES_PER_THREAD;
  const halve = (length: number, unit: number): number => Math.ceil(length / 2 / unit) * unit;
  while (few() && tileColumns > 128) {
    tileColumns = halve(tileColumns, 8);
  }
  while (few() && tileRows > 12) {
    tileRows = halve(tileRows, 12); // the fused kernels' unit; no multiple of it is a loss for the others
  }
  while (few() && tileColumns > 32) {
    tileColumns = halve(tileColumns, 8);
  }
  return { tileRows, tileColumns };
}

/** out[0] = √Σ x² over `count` elements. */
export function emitNormOf(pen: Pen, x: Place, count: number, out: Place): void {
  const tiles = Math.ceil(count / code.BLOCK);
  const sums: Place = { region: "packed", offset: 0 };
  pen.need({ packed: 8 * tiles });
  pen.emit(code.NORM_BLOCKS, tiles, [x, sums, count]);
  pen.emit(code.NORM_TOTAL, 1, [sums, tiles, out]);
}
