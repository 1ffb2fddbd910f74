/** The WASM engine's own promises beyond its numbers: memory, threads, refusals. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { elementCount, type Program } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { createWasmEngine, type WasmEngineOptions } from "./engine.ts";
import { createHeap } from "./heap.ts";
import { layOut } from "./layout.ts";
import { spawnThread } from "./spawn.ts";
import type { SpawnThread } from "./thread.ts";

const built = (name: string): Uint8Array<ArrayBuffer> =>
  new Uint8Array(readFileSync(new URL(`../../build/${name}`, import.meta.url)));

beforeAll(() => {
  execFileSync(process.execPath, [new URL("../../tools/build-wasm.mjs", import.meta.url).pathname]);
});

/** out = x + … + x, `count` times, through values of `length` elements. */
function sum(length: number, count: number, name = "out"): Program {
  const r = record("sum");
  const x = r.input("x", [1, length]);
  let total = r.add(x, x);
  for (let i = 2; i < count; i += 1) {
    total = r.add(total, x, i === count - 1 ? r.value(name, [1, length]) : undefined);
  }
  return r.finish([name]);
}

/** A state and one op that reads it. */
function stateful(elements: readonly number[]): Program {
  const r = record("big");
  r.norm(r.state("params", elements));
  return r.finish(["norm"]);
}

describe("layOut()", () => {
  test("lets values share bytes, but none that live at the same time", () => {
    const program = sum(1000, 50);
    const { places, valueBytes } = layOut(program);
    expect(valueBytes).toBeLessThan(5 * 4096);
    const last = new Map<number, number>();
    program.ops.forEach((op, i) => op.type === "add" && [op.a, op.b, op.out].forEach((id) => last.set(id, i)));
    program.ops.forEach((op, i) => {
      const live = program.tensors.filter(
        ({ id }) => id <= (op.type === "add" ? op.out : 0) && (last.get(id) ?? 0) >= i,
      );
      const spans = live.map(({ id, shape }) => [places[id]?.offset ?? 0, 4 * elementCount(shape)] as const);
      spans.sort(([a], [b]) => a - b);
      spans.slice(1).forEach(([begin], at) => {
        const [before, bytes] = spans[at] as readonly [number, number];
        expect(begin).toBeGreaterThanOrEqual(before + bytes);
      });
    });
  });

  test("refuses a program that reads a value before it is written", () => {
    const r = record("wrong");
    r.add(r.value("nothing", [4]), r.input("x", [4]));
    expect(() => layOut(r.finish([]))).toThrow('reads "nothing" before it is written');
  });
});

describe("createHeap()", () => {
  test("joins what is freed, in any order", () => {
    for (const order of [
      [0, 1, 2],
      [2, 0, 1],
      [1, 2, 0],
      [1, 0, 2],
    ]) {
      const heap = createHeap(0, 704);
      const taken = [100, 200, 300].map((bytes) => heap.allocate(bytes));
      expect(taken).toEqual([0, 128, 384]);
      expect(heap.allocate(1)).toBeUndefined();
      order.forEach((at) => heap.free(taken[at] as number));
      expect(heap.freeBytesMax()).toBe(704);
    }
  });
});

describe("createWasmEngine()", () => {
  test("grows its memory, and gives a disposed plan's bytes to the next", async () => {
    using engine = await createWasmEngine({ bytes: built("heddle.wasm") });
    for (let i = 0; i < 40; i += 1) {
      using plan = await engine.compile(sum(12_000_000, 3));
      expect(plan.valueBytes).toBeGreaterThan(96e6);
      if (i === 39) {
        plan.write("x", new Float32Array(12_000_000).fill(1.5));
        expect((await plan.run(["out"])).out.every((value) => value === 4.5)).toBe(true);
      }
    }
  });

  test("says by how much a model is too big, and goes on with a smaller one", async () => {
    using engine = await createWasmEngine({ bytes: built("heddle.wasm") });
    await expect(engine.compile(stateful([40_960, 32_768]))).rejects.toMatchObject({
      code: "model-too-big",
      message: expect.stringMatching(/"big" needs 512[1-9] MiB of memory, 102[5-9] MiB more/),
    });
    using plan = await engine.compile(stateful([3]));
    engine.writeState("params", new Float32Array([2, 3, 6]));
    expect(await plan.run(["norm"])).toEqual({ norm: new Float32Array([7]) });
    expect(await engine.readState("params")).toEqual(new Float32Array([2, 3, 6]));
  });

  test("lets its threads end on their own when it is disposed of", async () => {
    const exits: Promise<number>[] = [];
    const spawn: SpawnThread = (start) =>
      new Promise((resolve) => {
        const worker = new Worker(new URL("./thread-entry.ts", import.meta.url), { workerData: start });
        exits.push(new Promise((ended) => worker.once("exit", ended)));
        worker.once("message", () => resolve({ terminate: () => undefined }));
      });
    const engine = await createWasmEngine({ bytes: built("heddle-threads.wasm"), threads: 3, spawn });
    const plan = await engine.compile(sum(9, 3));
    plan.write("x", new Float32Array(9).fill(2));
    expect(await plan.run(["out"])).toEqual({ out: new Float32Array(9).fill(6) });
    engine[Symbol.dispose]();
    expect(await Promise.all(exits)).toEqual([0, 0]);
    await expect(plan.run()).rejects.toThrow("disposed of");
  });

  test("spawnThread() is not misled by a Worker that a library put into Node's global scope", async () => {
    vi.stubGlobal("Worker", Worker);
    try {
      using engine = await createWasmEngine({ threads: 2 });
      using plan = await engine.compile(sum(9, 3));
      plan.write("x", new Float32Array(9).fill(2));
      expect(await plan.run(["out"])).toEqual({ out: new Float32Array(9).fill(6) });
    } finally {
      vi.unstubAllGlobals();
    }
  });

  test("finds its module and its threads by itself", async () => {
    using engine = await createWasmEngine();
    using one = await createWasmEngine({ threads: 1 });
    const r = record("sum");
    r.add(r.input("x", [5]), r.input("y", [5]));
    for (const each of [engine, one]) {
      using plan = await each.compile(r.finish(["sum"]));
      plan.write("x", new Float32Array(5).fill(2));
      expect(await plan.run(["sum"])).toEqual({ sum: new Float32Array(5).fill(2) });
    }
  });

  test("fuses where it is asked to and the processor can, and takes the exact module where the runtime cannot", async () => {
    const products = async (options: WasmEngineOptions): Promise<[string, number]> => {
      using engine = await createWasmEngine({ threads: 1, ...options });
      const r = record("square");
      r.matmul(r.input("x", [1, 2]), r.input("y", [2, 1]), { transA: false, transB: false });
      using plan = await engine.compile(r.finish(["product"]));
      const x = 1 + 2 ** -12; // its square is 1 + 2⁻¹¹ + 2⁻²⁴
      plan.write("x", Float32Array.of(1, x));
      plan.write("y", Float32Array.of(-(1 + 2 ** -11), x));
      return [engine.device, (await plan.run(["product"]))["product"]?.[0] as number];
    };
    expect(await products({})).toEqual(["WASM SIMD, 1 thread", 0]);
    const [device, product] = await products({ fused: true });
    expect(device).toMatch(/^WASM SIMD, (fused, )?1 thread$/); // a processor without such an instruction gives the exact bits
    expect(product).toBe(device.includes("fused") ? 2 ** -24 : 0);
    vi.spyOn(WebAssembly, "validate").mockReturnValue(false);
    expect(await products({ fused: true })).toEqual(["WASM SIMD, 1 thread", 0]);
    vi.restoreAllMocks();
  });

  test("refuses threads that cannot be, by name", async () => {
    const bytes = built("heddle-threads.wasm");
    await expect(createWasmEngine({ threads: 65 })).rejects.toThrow("got 65 threads, need 1 to 64");
    const broken: SpawnThread = () => Promise.reject(new Error("no workers here"));
    await expect(createWasmEngine({ bytes, threads: 2, spawn: broken })).rejects.toMatchObject({ code: "no-engine" });
    const plain = createWasmEngine({ bytes: built("heddle.wasm"), threads: 2, spawn: broken });
    await expect(plain).rejects.toMatchObject({ code: "no-engine" });
  });

  test("is started again with one thread where nobody asked for more and those do not start", async () => {
    vi.stubGlobal("navigator", { hardwareConcurrency: 4 });
    const asked: number[] = [];
    const spawn: SpawnThread = ({ threadIndex }) => {
      asked.push(threadIndex);
      return Promise.reject(new Error("no workers here"));
    };
    using engine = await createWasmEngine({ spawn });
    expect([asked, engine.device]).toEqual([[1, 2], "WASM SIMD, 1 thread"]);
    vi.unstubAllGlobals();
  });

  test("refuses threads that start and cannot load the module", async () => {
    const bytes = built("heddle-threads.wasm");
    const spawn: SpawnThread = (start) => spawnThread({ ...start, bytes: Uint8Array.of(0) });
    const refusal = await createWasmEngine({ bytes, threads: 2, spawn }).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: "no-engine" });
    expect(String((refusal as Error).cause)).toMatch(/expected 4 bytes|magic/);
  });

  test("a web worker that cannot load the module reports it, and does not close before it is heard", async () => {
    const said: unknown[] = [];
    let start = (_event: { readonly data: unknown }): void => {};
    vi.stubGlobal("self", {
      addEventListener: (_type: string, listener: typeof start) => (start = listener),
      postMessage: (message: unknown) => said.push(message),
      close: () => said.push("closed"),
    });
    const reported = new Promise((resolve) => vi.stubGlobal("reportError", resolve));
    await import("./thread-entry.ts");
    start({ data: { bytes: Uint8Array.of(0), memory: new WebAssembly.Memory({ initial: 1 }) } });
    expect(await reported).toBeInstanceOf(WebAssembly.CompileError);
    expect(said).toEqual([]);
    vi.unstubAllGlobals();
  });

  test("refuses tokens outside the vocabulary, wrong lengths and wrong types", async () => {
    using engine = await createWasmEngine({ bytes: built("heddle.wasm") });
    const r = record("tokens");
    r.embedding(r.input("table", [5, 2]), r.input("tokens", [3], "u32"));
    using plan = await engine.compile(r.finish(["embedded"]));
    plan.write("tokens", new Uint32Array([0, 4, 2]));
    expect(() => plan.write("tokens", new Uint32Array([0, 5, 2]))).toThrow("it holds 5, and must stay below 5");
    expect(() => plan.write("tokens", new Uint32Array(2))).toThrow("got 2 u32 elements, need 3 u32");
    expect(() => plan.write("tokens", new Float32Array(3))).toThrow("got 3 f32 elements, need 3 u32");
    expect(() => plan.write("embedded", new Float32Array(6))).toThrow("no such input");
    await expect(plan.run(["table"])).rejects.toThrow("not an output");
    expect(() => engine.writeState("table", new Float32Array(1))).toThrow('state "table"');
  });
});
