/**
 * The WASM engine's promise: the same training run gives the same bits for every number of threads, shared memory or not.
 * The fused engine promises the same among machines that fuse. `engines.test.ts` holds Deno and the browsers to it.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { createTwin } from "../../src/tensor/twin.ts";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { GOLDEN, GOLDEN_FUSED, trainDigest } from "./train-digest.ts";

const root = new URL("../../", import.meta.url);
const build = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(new URL(`build/${name}`, root)));

beforeAll(() => {
  execFileSync(process.execPath, [fileURLToPath(new URL("tools/build-wasm.mjs", root))]);
});

describe("trainDigest() on the WASM engine", () => {
  test.each([1, 2, 3])("is the golden one in Node with %d threads", async (threads) => {
    using engine = await createWasmEngine({ bytes: build("heddle-threads.wasm"), threads });
    expect((await trainDigest(engine)).digest).toBe(GOLDEN);
  });

  test.each([
    ["heddle-fused-threads.wasm", 1],
    ["heddle-fused-threads.wasm", 2],
    ["heddle-fused-threads.wasm", 3],
    ["heddle-fused.wasm", 1],
  ])("is the golden one of machines that fuse with %s and %d threads", async (name, threads) => {
    using engine = await createWasmEngine({ bytes: build(name), threads });
    expect((await trainDigest(engine)).digest).toBe(engine.device.includes("fused") ? GOLDEN_FUSED : GOLDEN);
  });

  test("is the golden one in Node without shared memory, and the twin's losses are close", async () => {
    using engine = await createWasmEngine({ bytes: build("heddle.wasm") });
    const { digest, losses } = await trainDigest(engine);
    expect(digest).toBe(GOLDEN);
    using twin = createTwin();
    const reference = await trainDigest(twin);
    losses.forEach((loss, step) => expect(loss).toBeCloseTo(reference.losses[step] as number, 3));
  });
});
