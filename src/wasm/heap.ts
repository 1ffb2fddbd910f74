/**
 * Address space of the engine's WebAssembly memory: which byte ranges are taken. It hands out addresses and grows nothing;
 * `engine.ts` grows the memory to cover them. First fit over a list of gaps is enough: an engine holds a few plans and a
 * few dozen state tensors, allocated before training and freed after it.
 */
import { assert } from "../base/assert.ts";

export const PAGE_BYTES = 65_536;
/** Addresses are multiples of a cache line. */
const ALIGNMENT = 64;

export interface Heap {
  /** The address of `bytes` free bytes, undefined when no gap is that long. */
  allocate(bytes: number): number | undefined;
  /** Gives back what `allocate` returned. */
  free(address: number): void;
  /** The longest gap, in bytes. */
  freeBytesMax(): number;
}

/** A heap over addresses `begin` … `end`. */
export function createHeap(begin: number, end: number): Heap {
  const gaps: { address: number; bytes: number }[] = [{ address: align(begin), bytes: end - align(begin) }];
  const taken = new Map<number, number>();
  return {
    allocate: (wanted) => {
      const bytes = align(Math.max(wanted, 1));
      const gap = gaps.find((candidate) => candidate.bytes >= bytes);
      if (gap === undefined) {
        return undefined;
      }
      const address = gap.address;
      gap.address += bytes;
      gap.bytes -= bytes;
      taken.set(address, bytes);
      return address;
    },
    free: (address) => {
      const bytes = taken.get(address);
      assert(bytes !== undefined, `Cannot free address ${address}: it is not allocated`);
      taken.delete(address);
      const next = gaps.findIndex((gap) => gap.address > address);
      gaps.splice(next < 0 ? gaps.length : next, 0, { address, bytes });
      join(gaps);
    },
    freeBytesMax: () => gaps.reduce((most, gap) => Math.max(most, gap.bytes), 0),
  };
}

/** The next multiple of the alignment. */
export function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Joins neighbouring gaps and drops empty ones, in place; gaps are in order of address. */
function join(gaps: { address: number; bytes: number }[]): void {
  for (let i = gaps.length - 1; i > 0; i -= 1) {
    const [before, gap] = [gaps[i - 1], gaps[i]];
    if (before !== undefined && gap !== undefined && before.address + before.bytes === gap.address) {
      before.bytes += gap.bytes;
      gaps.splice(i, 1);
    }
  }
  for (let i = gaps.length - 1; i >= 0; i -= 1) {
    if (gaps[i]?.bytes === 0) {
      gaps.splice(i, 1);
    }
  }
}
