/**
 * Which values share memory: each lives from the first op that touches it to the last, and two that never live at the
 * same time may lie in one slot, a buffer of its own. Slots rather than one arena, because WebGPU does not let a dispatch
 * read and write windows of one buffer freely. Inputs and states have buffers of their own and are not planned here.
 */
import {
  baseOf,
  elementCount,
  readsOf,
  tensorNamed,
  writesOf,
  type Op,
  type Program,
  type TensorId,
} from "../tensor/program.ts";

/** Something that needs `bytes` from op number `from` to op number `to`, both included. */
export interface Lifetime {
  readonly bytes: number;
  readonly from: number;
  readonly to: number;
}

export interface Slots {
  /** Bytes of each slot. */
  readonly bytes: readonly number[];
  /** The slot of each lifetime, by its index. */
  readonly of: readonly number[];
}

/**
 * Lifetimes of the whole values of `program` (a window lives in its base), outputs to the end, since the host reads them after the run. `steps` are the ops
 * in the order in which they run; those of one step run at the same time.
 */
export function valueLifetimes(
  program: Program,
  steps: readonly (readonly Op[])[] = program.ops.map((op) => [op]),
): ReadonlyMap<TensorId, Lifetime> {
  const lifetimes = new Map<TensorId, Lifetime>();
  const outputs = new Set(program.outputs.map((name) => baseOf(program, tensorNamed(program, name).id)));
  for (const [at, ops] of steps.entries()) {
    for (const id of ops.flatMap((op) => [...readsOf(op), ...writesOf(op)]).map((used) => baseOf(program, used))) {
      const tensor = program.tensors[id];
      if (tensor?.role !== "value") {
        continue;
      }
      const from = lifetimes.get(id)?.from ?? at;
      const to = outputs.has(id) ? Infinity : at;
      lifetimes.set(id, { bytes: elementCount(tensor.shape) * 4, from, to });
    }
  }
  return lifetimes;
}

/**
 * Gives each lifetime the smallest free slot that is large enough, else the largest free one, which grows, else a new one.
 * Order: by beginning, as given among equals; so the same Program gets the same slots everywhere.
 */
export function assignSlots(lifetimes: readonly Lifetime[]): Slots {
  const bytes: number[] = [];
  const until: number[] = []; // the last op that uses the slot so far
  const of = lifetimes.map(() => -1);
  const order = [...lifetimes.entries()].sort(([, a], [, b]) => a.from - b.from);
  for (const [index, lifetime] of order) {
    const slot = chooseSlot(bytes, until, lifetime);
    bytes[slot] = Math.max(bytes[slot] ?? 0, lifetime.bytes);
    until[slot] = lifetime.to;
    of[index] = slot;
  }
  return { bytes, of };
}

function chooseSlot(bytes: readonly number[], until: readonly number[], wanted: Lifetime): number {
  let best = -1;
  for (const [slot, size] of bytes.entries()) {
    if ((until[slot] as number) >= wanted.from) {
      continue;
    }
    const bestSize = best === -1 ? -1 : (bytes[best] as number);
    const fits = size >= wanted.bytes;
    const bestFits = bestSize >= wanted.bytes;
    if (best === -1 || (fits && (!bestFits || size < bestSize)) || (!fits && !bestFits && size > bestSize)) {
      best = slot;
    }
  }
  return best === -1 ? bytes.length : best;
}
