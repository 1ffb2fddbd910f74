/**
 * What one dispatch is before it is bound to memory: a kernel's text, its constants, what each binding point gets, and how
 * many workgroups. `kernels.ts` writes them, `merge.ts` makes one of several, `compile.ts` binds them.
 */
import { assert } from "../base/assert.ts";
import type { TensorId } from "../tensor/program.ts";
import type { Access, Constants } from "./shader.ts";

/**
 * What a binding point gets. tensor: a tensor, or `window` of it in elements; `inPlace`: the kernel stays right if the
 * tensor is also the one that it writes. scratch: memory for this op alone, the same for equal labels. table: constants
 * that the host computes once. none: the kernel declares it and does not use it.
 */
export type Binding =
  | {
      readonly type: "tensor";
      readonly id: TensorId;
      readonly access: Access;
      readonly inPlace?: boolean;
      readonly window?: { readonly offset: number; readonly count: number };
    }
  | {
      readonly type: "scratch";
      readonly label: string;
      readonly bytes: number;
      readonly access: Access;
      readonly inPlace?: boolean;
    }
  | { readonly type: "table"; readonly key: string; readonly make: () => Float32Array<ArrayBuffer> }
  | { readonly type: "none" };

/**
 * The most floating-point operations of one dispatch, which nothing interrupts once it runs: 43 ms on a phone's GPU of 50 GFLOP/s, where a
 * submit may take 200 and Windows resets a device after 2 s. Ops share a dispatch up to it (`fuse.ts`), and what is more by
 * itself is cut (`split.ts`, attention in `kernels.ts`).
 */
export const DISPATCH_FLOPS_MAX = 2 ** 31;

export interface Dispatch {
  readonly kernel: string;
  readonly text: string;
  readonly constants: Constants;
  readonly bindings: readonly Binding[];
  /** Workgroups in all; folded to two dimensions by the Plan, which adds the constant GRID_X. */
  readonly groups: number;
}

export function read(id: TensorId): Binding {
  return { type: "tensor", id, access: "read" };
}

/** What is read if it is there. */
export function optional(id: TensorId | undefined): Binding {
  return id === undefined ? { type: "none" } : read(id);
}

export function write(id: TensorId): Binding {
  return { type: "tensor", id, access: "write" };
}

/** An addend, if there is one; it may be the tensor that is written: every element is read by whoever writes it, before. */
export function addend(id: TensorId | undefined): Binding {
  return id === undefined ? { type: "none" } : { type: "tensor", id, access: "read", inPlace: true };
}

/** How many groups of `per` hold `count`. */
export function share(count: number, per: number): number {
  return Math.ceil(count / per);
}

export function at<T>(list: readonly T[], index: number): T {
  const value = list[index];
  assert(value !== undefined, `Cannot read element ${index} of ${list.length}`);
  return value;
}
