/**
 * What the merge of a range (`range.ts`) needs of the module that computes it (`src/wasm/assembly/merge.ts`, opened by `src/wasm/merge.ts`).
 * Types only: this folder loads nothing. All numbers are addresses and bytes in the module's memory unless said otherwise.
 */

export interface MergeKernel {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  /** Bytes of a cursor. */
  readonly CURSOR_BYTES: { readonly value: number };
  /** Bytes behind the last payload that are read and not used. */
  readonly READ_AHEAD: { readonly value: number };
  /** The first address that the module does not use itself. */
  heapBegin(): number;
  /**
   * Makes a cursor for chunks of a payload whose bits begin at bit `from` (0 … 7) of `piece` and are `length` many, whose exact
   * values lie at `exact`, and which have `entries` entries; `keep` and `bits` are the header's. Values count times `scale`.
   */
  open(
    cursor: number,
    piece: number,
    from: number,
    length: number,
    exact: number,
    entries: number,
    keep: number,
    bits: number,
    scale: number,
  ): void;
  /** Moves a cursor over `chunks` whole chunks. 0: they are damaged. */
  skip(cursor: number, chunks: number): number;
  /** The next bit of a cursor, counted from address 0. */
  bitOf(cursor: number): number;
  /** Entries that a cursor has before it. */
  leftOf(cursor: number): number;
  /**
   * Merges `count` payloads, whose cursors lie one behind the other in the order of their merging, into `sums`, f64, whole chunks;
   * `begins` clears them before. Returns −1, or the number of the cursor whose payload is damaged.
   */
  merge(cursors: number, count: number, parameters: number, sums: number, begins: boolean): number;
}

/** A kernel with a memory of its own, small at first. */
export type OpenMergeKernel = () => MergeKernel;
