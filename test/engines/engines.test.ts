/**
 * The engine contract on every stack that this machine can offer (`stacks.ts`). Two independent implementations of WGSL, three
 * drivers and two JavaScript engines catch what any one lets through. The stacks run side by side in processes of their own;
 * every case is a test with a name; `npm run sweep` runs every rung of the kernels' ladders. A missing system package fails,
 * with a sentence saying what to install.
 */
import process from "node:process";
import { beforeAll, describe, expect, test } from "vitest";
import { trainsHalves, wasmNames, webGpuNames } from "./entry.ts";
import { GPU_CHECKS } from "./gpu-checks.ts";
import { stacks, type Stack } from "./stacks.ts";
import { drift, DRIFT_MAX, HALF_DRIFT_MAX } from "./trace.ts";

/** `npm run sweep` sets it. */
const sweep = process.env["HEDDLE_SWEEP"] === "1";
const STACK_MS_MAX = sweep ? 3_600_000 : 900_000;
const all = stacks({ msMax: STACK_MS_MAX, sweep });
const reference = all.find(({ name }) => name === "WASM: Node") as Stack;

beforeAll(() => {
  // All at once; each stack's tests wait for its own.
  for (const stack of all) {
    stack.report().catch(() => undefined);
  }
});

describe.each(all)("$name", (stack) => {
  const names = stack.engine === "webgpu" ? webGpuNames(GPU_CHECKS, stack.part) : wasmNames();
  test(
    "runs, and reports on every case",
    async () => {
      const { results } = await stack.report();
      expect(results.map(({ name }) => name)).toEqual(names);
    },
    STACK_MS_MAX,
  );

  test.each(names)(
    "%s",
    async (name) => {
      const { results } = await stack.report();
      const result = results.find((candidate) => candidate.name === name);
      expect(result, `No result for "${name}"`).toBeDefined();
      expect(result?.passed, result?.detail).toBe(true);
    },
    STACK_MS_MAX,
  );

  test(
    stack.engine === "wasm" ? "trains 40 steps to the same bits as Node" : "trains 40 steps within the band of WASM",
    async () => {
      const [{ traces }, expected] = [await stack.report(), (await reference.report()).traces[0]];
      expect(traces.length).toBe(stack.engine === "wasm" ? 2 : 1);
      for (const { losses, digest } of traces) {
        if (stack.engine === "wasm") {
          expect(digest).toBe(expected?.digest);
        }
        expect(drift(losses, expected?.losses ?? [])).toBeLessThanOrEqual(stack.engine === "wasm" ? 0 : DRIFT_MAX);
      }
    },
    STACK_MS_MAX,
  );

  if (stack.engine === "wasm") {
    test(
      "trains 40 steps, fused, to the same bits as Node, within the band of the exact engine",
      async () => {
        const [{ fused }, expected] = [await stack.report(), await reference.report()];
        expect(fused?.digest).toBe(expected.fused?.digest);
        expect(drift(fused?.losses ?? [], expected.traces[0]?.losses ?? [])).toBeLessThanOrEqual(DRIFT_MAX);
      },
      STACK_MS_MAX,
    );
  }

  if (stack.engine === "webgpu" && trainsHalves(stack.part.rungs)) {
    test(
      "trains 40 steps with values kept as f16 within their band of WASM",
      async () => {
        const [{ traces, halves }, expected] = [await stack.report(), (await reference.report()).traces[0]];
        expect(halves?.digest).not.toBe(traces[0]?.digest);
        expect(drift(halves?.losses ?? [], expected?.losses ?? [])).toBeLessThanOrEqual(HALF_DRIFT_MAX);
      },
      STACK_MS_MAX,
    );
  }
});
