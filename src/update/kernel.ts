/**
 * What the merge (`merge.ts`) needs of the module that computes it (`src/wasm/assembly/merge.ts`, opened by `src/wasm/merge.ts`).
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
  /** Makes a cursor for a payload of P `parameters`, whose values count times `scale`, with `weight`. 0: it is damaged. */
  open(cursor: number, payload: number, bytes: number, parameters: number, weight: number, scale: number): number;
  /**
   * Merges `count` payloads, whose cursors lie one behind the other in the order of their merging. A parameter is a pair
   * meanwhile, of its mean and its weight, f64. The pairs of a chunk lie `stride` bytes behind those of the one before; 0: all in
   * one place. `begins` clears them before, `ends` writes the means behind each other, f64, whole chunks, where the first pairs
   * lie or elsewhere. Returns −1, or the number of the cursor whose payload is damaged.
   */
  merge(
    cursors: number,
    count: number,
    parameters: number,
    pairs: number,
    stride: number,
    mean: number,
    begins: boolean,
    ends: boolean,
  ): number;
}

/** A kernel with a memory of its own, small at first. */
export type OpenMergeKernel = () => MergeKernel;
