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
 * in the order in which they run; those of one step run at the same time. `elementBytes` tells how tensors are kept.
 */
export function valueLifetimes(
  program: Program,
  steps: readonly (readonly Op[])[] = program.ops.map((op) => [op]),
  elementBytes: (id: TensorId) => number = () => 4,
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
      lifetimes.set(id, { bytes: elementCount(tensor.shape) * elementBytes(id), from, to });
    }
  }
  return lifetimes;
}

/**
 * Gives each lifetime, the largest first, a slot that is free while it lives: of those the one that stands idle for the
 * fewest ops before and after it, else a new one, which no later lifetime outgrows. Among equals the earlier comes first,
 * so the same Program gets the same slots everywhere. Source: greedy by size, Pisarchyk and Lee, arXiv 2001.03288.
 */
export function assignSlots(lifetimes: readonly Lifetime[]): Slots {
  const slots: { readonly bytes: number; readonly taken: Lifetime[] }[] = [];
  const of = lifetimes.map(() => -1);
  const order = [...lifetimes.entries()].sort(([, a], [, b]) => b.bytes - a.bytes || a.from - b.from);
  for (const [index, lifetime] of order) {
    let [best, bestIdle] = [-1, Infinity];
    for (const [slot, { taken }] of slots.entries()) {
      const idle = idleAround(taken, lifetime);
      if (idle < bestIdle) {
        [best, bestIdle] = [slot, idle];
      }
    }
    if (best === -1) {
      best = slots.push({ bytes: lifetime.bytes, taken: [] }) - 1;
    }
    slots[best]?.taken.push(lifetime);
    of[index] = best;
  }
  return { bytes: slots.map(({ bytes }) => bytes), of };
}

/** Ops between `wanted` and its neighbours among `taken`; Infinity if it meets one of them. */
function idleAround(taken: readonly Lifetime[], wanted: Lifetime): number {
  let [before, after] = [IDLE_MAX, IDLE_MAX];
  for (const { from, to } of taken) {
    if (from <= wanted.to && wanted.from <= to) {
      return Infinity;
    }
    if (to < wanted.from) {
      before = Math.min(before, wanted.from - to);
    } else {
      after = Math.min(after, from - wanted.to);
    }
  }
  return before + after;
}

/** Stands for "no neighbour": more than the ops of any Program. */
const IDLE_MAX = 2 ** 30;
