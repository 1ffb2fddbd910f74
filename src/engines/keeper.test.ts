import { expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import type { Engine } from "../tensor/engine.ts";
import type { ChosenEngine } from "./choose.ts";
import { keepEngine } from "./keeper.ts";

const AT_FIRST = "The GPU is used: it is 3.1 times as fast as the processor here.";

/** A keeper over engines that only know their kind, with a record of what was opened and disposed of. */
function scene(kind: "webgpu" | "wasm", openGpu: () => void = () => {}) {
  const log: string[] = [];
  let count = 0;
  const engineOf = (wanted: "webgpu" | "wasm"): ChosenEngine => {
    count += 1;
    const name = `${wanted} ${count}`;
    const engine = { kind: wanted, device: name, [Symbol.dispose]: () => log.push(`dispose ${name}`) };
    // What `chooseEngine` says when a kind is asked for by name.
    const sentence = wanted === "webgpu" ? "WebGPU is used, as asked." : "The processor is used, as asked.";
    return { engine: engine as unknown as Engine, sentence };
  };
  const keeper = keepEngine({ ...engineOf(kind), sentence: AT_FIRST }, async (wanted) => {
    log.push(`open ${wanted}`);
    if (wanted === "webgpu") {
      openGpu();
    }
    return engineOf(wanted);
  });
  return { keeper, log, take: (losses: number) => keeper.use(losses, async (chosen) => chosen) };
}

test("keepEngine() hands out the chosen engine first, and a new one of its kind after a loss", async () => {
  const { take, log } = scene("webgpu");
  expect((await take(0)).engine.device).toBe("webgpu 1");
  expect(log).toEqual([]);
  expect((await take(1)).engine.device).toBe("webgpu 2");
  expect(log).toEqual(["dispose webgpu 1", "open webgpu"]);
});

test("keepEngine() keeps saying why this kind of engine was chosen, and why it was left", async () => {
  const { take } = scene("webgpu");
  const said: string[] = [];
  for (const losses of [0, 0, 1, 2, 0, 0]) {
    said.push((await take(losses)).sentence);
  }
  const left = "The processor is used from now on: the GPU failed 2 times in a row.";
  expect(said).toEqual([AT_FIRST, AT_FIRST, AT_FIRST, left, left, left]);
});

test("keepEngine() goes to the processor when the adapter is gone, says why, and stays there", async () => {
  const { take, log } = scene("webgpu", () => {
    throw new HeddleError("no-engine", "Cannot use WebGPU: there is no WebGPU adapter here");
  });
  await take(0);
  const { engine, sentence } = await take(1);
  expect(engine.kind).toBe("wasm");
  expect(sentence).toMatch(/processor is used from now on.*no WebGPU adapter/);
  expect((await take(1)).engine.kind).toBe("wasm");
  expect(log.filter((line) => line === "open webgpu").length).toBe(1);
});

test("keepEngine() goes to the processor when the GPU fails twice in a row", async () => {
  const { take } = scene("webgpu");
  await take(0);
  await take(1);
  const { engine, sentence } = await take(2);
  expect([engine.kind, sentence]).toEqual([
    "wasm",
    "The processor is used from now on: the GPU failed 2 times in a row.",
  ]);
});

test("keepEngine() makes the work on the processor where the GPU has no room for it, and passes bugs on", async () => {
  const { keeper, log } = scene("webgpu");
  const made = await keeper.use(0, async ({ engine }) => {
    if (engine.kind === "webgpu") {
      throw new HeddleError("model-too-big", "The model needs 3 GiB more");
    }
    return engine.device;
  });
  expect(made).toBe("wasm 2");
  expect(log).toEqual(["dispose webgpu 1", "open wasm"]);
  const bug = scene("webgpu").keeper.use(0, () => Promise.reject(new Error("a bug")));
  await expect(bug).rejects.toThrow("a bug");
});

test("keepEngine() has nothing to fall back on from the processor", async () => {
  const { keeper } = scene("wasm");
  const refusal = new HeddleError("model-too-big", "too big");
  await expect(keeper.use(0, () => Promise.reject(refusal))).rejects.toBe(refusal);
});
