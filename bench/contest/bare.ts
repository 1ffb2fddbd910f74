/**
 * The speed that a product on WASM could have at most: a loop of 128-bit multiply-adds, fused where the processor fuses, on
 * nothing but registers, with enough independent accumulators to fill the pipes. The two factors come from memory, because V8
 * builds constants anew at every use.
 */
import { assert } from "../../src/base/assert.ts";

const ACCUMULATORS = 12;
const FLOP_PER_ROUND = ACCUMULATORS * 8;
/** What one sample computes. */
const SAMPLE_GFLOP = 0.25;

export interface BareLoop {
  /** One sample, on the calling thread. */
  run(): void;
  /** The rate of so many threads, had each of them the speed of a sample that took `ms`. */
  gflopsOf(ms: number): number;
}

/** The loop as a module's bytes, which pass through JSON. Called in Node; a browser loads this file without the compiler. */
export async function compileBareLoop(): Promise<number[]> {
  const { compileString } = await import("assemblyscript/asc");
  const all = Array.from({ length: ACCUMULATORS }, (_, i) => `c${i}`);
  const source = `
    const factors = memory.data<f32>([0.9999, 0.9999, 0.9999, 0.9999, 0.0001, 0.0001, 0.0001, 0.0001], 16);
    export function spin(rounds: i32): f32 {
      const m = v128.load(factors);
      const a = v128.load(factors, 16);
      ${all.map((name, i) => `let ${name} = f32x4.splat(${i}.5);`).join("\n")}
      for (; rounds > 0; rounds--) {
        ${all.map((name) => `${name} = f32x4.relaxed_madd(${name}, m, a);`).join("\n")}
      }
      return f32x4.extract_lane(${all.reduce((sum, name) => `f32x4.add(${sum}, ${name})`)}, 0);
    }`;
  const enable = ["simd", "relaxed-simd"];
  const { binary, error } = await compileString(source, { optimizeLevel: 3, runtime: "stub", enable });
  assert(error === null && binary !== null, `Cannot compile the bare loop: ${error?.message}`);
  return [...binary];
}

export async function openBareLoop(bytes: readonly number[], threads: number): Promise<BareLoop> {
  const { instance } = await WebAssembly.instantiate(Uint8Array.from(bytes));
  const spin = instance.exports["spin"] as (rounds: number) => number;
  return {
    run: () => {
      const sum = spin(Math.round((SAMPLE_GFLOP * 1e9) / FLOP_PER_ROUND));
      assert(sum > 0 && sum < 2 * ACCUMULATORS * ACCUMULATORS, `Cannot believe the bare loop: it gave ${sum}`);
    },
    gflopsOf: (ms) => (threads * 1000 * SAMPLE_GFLOP) / ms,
  };
}
