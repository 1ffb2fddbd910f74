import { expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import type { GpuEngine } from "../gpu/engine.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Program } from "../tensor/program.ts";
import { openTunings, rememberTuning } from "./tunings.ts";

const program: Program = { name: "p", tensors: [], ops: [], outputs: [] };

/** An engine that searches at its first compile, unless it was given a tuning. */
function engineWith(given: string | undefined): { engine: GpuEngine; searches: () => number } {
  let [tuned, searches] = [given, 0];
  const engine = {
    get tuned() {
      return tuned;
    },
    compile: async () => {
      if (tuned === undefined) {
        searches += 1;
        tuned = "blocks are fastest";
      }
    },
    [Symbol.dispose]: () => {},
  };
  return { engine: engine as unknown as GpuEngine, searches: () => searches };
}

test("rememberTuning() writes what the first start found, so that the second does not search", async () => {
  const { keys } = createMemoryStore();
  const adapter = "vendor model 7";
  for (const [start, searchesWanted] of [1, 0].entries()) {
    const tunings = openTunings(keys);
    const { engine, searches } = engineWith(await tunings.read(adapter));
    const remembering = rememberTuning(engine, { tunings, adapter });
    await remembering.compile(program);
    await remembering.compile(program);
    expect([start, searches()]).toEqual([start, searchesWanted]);
  }
  expect(await openTunings(keys).read("vendor model 8")).toBeUndefined();
});

test("openTunings() forgets what was kept for one adapter, and no other's", async () => {
  const tunings = openTunings(createMemoryStore().keys);
  await tunings.write("a", "text of a");
  await tunings.write("b", "text of b");
  await tunings.forget("a");
  expect([await tunings.read("a"), await tunings.read("b")]).toEqual([undefined, "text of b"]);
});

test("openTunings() takes nothing that is too long, and a store that fails for an empty one", async () => {
  const { keys } = createMemoryStore();
  const tunings = openTunings(keys);
  await tunings.write("a", "x".repeat(20_000));
  expect(await tunings.read("a")).toBeUndefined();
  const refuse = (): Promise<never> => Promise.reject(new Error("no"));
  const broken = { ...keys, get: refuse, set: refuse, delete: refuse };
  await openTunings(broken).write("a", "text");
  await openTunings(broken).forget("a");
  expect(await openTunings(broken).read("a")).toBeUndefined();
  await keys.set((await keys.list("tuning/"))[0] ?? "", Uint8Array.of(0xff, 0xfe) as Bytes);
  expect(await tunings.read("a")).toBe("\ufffd\ufffd");
});
