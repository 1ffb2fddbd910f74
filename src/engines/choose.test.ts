import { describe, expect, test } from "vitest";
import type { Engine } from "../tensor/engine.ts";
import { atOnce } from "../base/turn.ts";
import { beginEngine, BEGUN, chooseEngine, type ChooseOptions, type GpuFound } from "./choose.ts";

/** Engines that only know their kind and whether they were disposed of, and speeds by kind. */
function scene(change: Partial<ChooseOptions<GpuFound>> = {}, speeds = { webgpu: 100, wasm: 10 }) {
  const disposed: string[] = [];
  const fake = (kind: "webgpu" | "wasm"): Engine =>
    ({ kind, device: kind, [Symbol.dispose]: () => disposed.push(kind) }) as unknown as Engine;
  const options: ChooseOptions<GpuFound> = {
    wanted: "auto",
    probeGpu: async () => ({ software: false }),
    createGpu: async () => fake("webgpu"),
    createWasm: async () => fake("wasm"),
    measure: async (engine) => speeds[engine.kind as "webgpu" | "wasm"],
    ...change,
  };
  return { options, disposed };
}

describe("chooseEngine()", () => {
  test("takes a real GPU that is faster and disposes of the other engine", async () => {
    const { options, disposed } = scene();
    const { engine, sentence } = await chooseEngine(options);
    expect([engine.kind, disposed]).toEqual(["webgpu", ["wasm"]]);
    expect(sentence).toBe("The GPU is used: it is 10 times as fast as the processor here.");
  });

  test("takes a real GPU unmeasured when there is nothing to measure with", async () => {
    const { options, disposed } = scene();
    const { measure: _measure, ...without } = options;
    expect((await chooseEngine(without)).engine.kind).toBe("webgpu");
    expect((await chooseEngine({ ...without, probeGpu: async () => ({ software: true }) })).engine.kind).toBe("wasm");
    expect(disposed).toEqual([]);
  });

  test("takes WASM when the GPU is slower", async () => {
    const { options, disposed } = scene({}, { webgpu: 10, wasm: 25 });
    const { engine, sentence } = await chooseEngine(options);
    expect([engine.kind, disposed]).toEqual(["wasm", ["webgpu"]]);
    expect(sentence).toContain("2.5 times");
  });

  test("never takes a software adapter by itself, and does when WebGPU is asked for", async () => {
    const probeGpu = async () => ({ software: true });
    expect((await chooseEngine(scene({ probeGpu }).options)).engine.kind).toBe("wasm");
    expect((await chooseEngine(scene({ probeGpu, wanted: "webgpu" }).options)).engine.kind).toBe("webgpu");
  });

  test("falls back to WASM when there is no adapter, the probe fails, or the GPU fails its first work", async () => {
    expect((await chooseEngine(scene({ probeGpu: async () => null }).options)).engine.kind).toBe("wasm");
    expect((await chooseEngine(scene({ probeGpu: () => Promise.reject(new Error("no")) }).options)).engine.kind).toBe(
      "wasm",
    );
    const failing = scene({
      measure: async (engine) => {
        if (engine.kind === "webgpu") {
          throw new Error("it gave wrong numbers");
        }
        return 1;
      },
    });
    const { engine, sentence } = await chooseEngine(failing.options);
    expect([engine.kind, failing.disposed]).toEqual(["wasm", ["webgpu"]]);
    expect(sentence).toContain("it gave wrong numbers");
  });

  test("keeps the GPU when WASM cannot be made, and says so when WebGPU was asked for and is missing", async () => {
    const createWasm = () => Promise.reject(new Error("no WebAssembly"));
    expect((await chooseEngine(scene({ createWasm }).options)).engine.kind).toBe("webgpu");
    await expect(chooseEngine(scene({ wanted: "webgpu", probeGpu: async () => null }).options)).rejects.toThrow(
      "no WebGPU adapter",
    );
  });
});

describe("beginEngine()", () => {
  const NOT_ASKED = () => Promise.reject(new Error("nobody asked for the GPU yet"));

  test("begins on WASM, opens no GPU, and says how to open the faster one", async () => {
    const { options, disposed } = scene();
    const begun = await beginEngine({ ...options, createGpu: NOT_ASKED });
    expect([begun.engine.kind, begun.sentence]).toEqual(["wasm", BEGUN]);
    const { ahead } = await beginEngine(options);
    expect((await ahead?.(atOnce))?.engine.kind).toBe("webgpu");
    expect(disposed).toEqual(["wasm"]);
    const slow = await beginEngine(scene({}, { webgpu: 1, wasm: 4 }).options);
    expect((await slow.ahead?.(atOnce))?.sentence).toContain("4.0 times");
  });

  test("times both engines in turn", async () => {
    let turns = 0;
    const inTurn: typeof atOnce = (work) => {
      turns += 1;
      return work();
    };
    const { options } = scene({ measure: (engine, mine) => mine(async () => (engine.kind === "webgpu" ? 2 : 1)) });
    await (await beginEngine(options)).ahead?.(inTurn);
    expect(turns).toBe(2);
  });

  test("stays on WASM when it was asked for, or there is no GPU, or a software one", async () => {
    for (const change of [
      { wanted: "wasm" as const },
      { probeGpu: async () => null },
      { probeGpu: async () => ({ software: true }) },
    ]) {
      const { engine, ahead } = await beginEngine(scene({ ...change, createGpu: NOT_ASKED }).options);
      expect([engine.kind, ahead]).toEqual(["wasm", null]);
    }
  });

  test("begins on WASM also when WebGPU is asked for, is refused without an adapter, and waits where there is no WASM", async () => {
    const { engine, ahead } = await beginEngine(scene({ wanted: "webgpu", measure: NOT_ASKED }).options);
    expect([engine.kind, (await ahead?.(atOnce))?.sentence]).toEqual(["wasm", "WebGPU is used, as asked."]);
    const missing = beginEngine(scene({ wanted: "webgpu", probeGpu: async () => null }).options);
    await expect(missing).rejects.toThrow("no WebGPU adapter");
    const alone = await beginEngine(scene({ createWasm: () => Promise.reject(new Error("no WebAssembly")) }).options);
    expect([alone.engine.kind, alone.ahead]).toEqual(["webgpu", null]);
  });
});
