/** Inputs shared by the tests of the update codec. */
import * as fc from "fast-check";
import { createRng } from "../base/rng.ts";
import type { SparseUpdate } from "./unpack.ts";

/** `count` samples with mean 0, the same every time. */
export function samples(kind: "gauss" | "laplace", count: number, seed = 1): Float32Array<ArrayBuffer> {
  const rng = createRng(kind, seed);
  const laplace = (): number => (rng.float() < 0.5 ? -1 : 1) * -Math.log(1 - rng.float());
  return Float32Array.from({ length: count }, () => (kind === "gauss" ? rng.normal() : laplace()));
}

/** Finite f32 values with many zeros, ties, tiny and huge ones; lengths on both sides of one and two chunks. */
export function updateValues(): fc.Arbitrary<Float32Array<ArrayBuffer>> {
  const length = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(4095, 4096, 4097, 8192, 9001));
  return fc.tuple(length, fc.integer(), fc.constantFrom("ties", "sparse", "wide", "plain")).map(([n, seed, kind]) => {
    const rng = createRng("update values", seed);
    return Float32Array.from({ length: n }, () => {
      switch (kind) {
        case "ties":
          return rng.below(5) - 2;
        case "sparse":
          return rng.float() < 0.01 ? rng.normal() : 0;
        case "wide":
          return Math.fround((rng.float() - 0.5) * 2 ** (rng.below(270) - 145)) || 0;
        default:
          return rng.normal();
      }
    });
  });
}

/** An update of the given entries, of which those that are zero are left out. */
export function sparse(dense: ArrayLike<number>): SparseUpdate {
  const indices = Array.from({ length: dense.length }, (_, i) => i).filter((i) => dense[i] !== 0);
  return {
    parameters: dense.length,
    indices: Uint32Array.from(indices),
    values: Float64Array.from(indices, (i) => dense[i] as number),
  };
}

/** The update as a dense vector. */
export function densified({ parameters, indices, values }: SparseUpdate): Float64Array {
  const dense = new Float64Array(parameters);
  indices.forEach((index, i) => {
    dense[index] = values[i] as number;
  });
  return dense;
}
