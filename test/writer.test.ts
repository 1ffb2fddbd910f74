/** “Try the model” over engines that fail: what failed is put away, and the next text gets another engine. */
import { expect, test, vi } from "vitest";
import { HeddleError } from "../src/base/assert.ts";
import { floatBytes, type Digest } from "../src/base/bytes.ts";
import { initialParameters } from "../src/model/layout.ts";
import type { RunView } from "../src/protocol/run-view.ts";
import { sampleCharter } from "../src/protocol/sample.ts";
import type { Engine } from "../src/tensor/engine.ts";
import { createTwin } from "../src/tensor/twin.ts";
import { createWriter } from "../worker/writer.ts";

const opened: Engine[] = [];
const disposed: Engine[] = [];
/** What the next engines do when they compile and run. */
let fault: "compile" | "run" | undefined;

vi.mock("../worker/engine.ts", () => ({
  openEngine: async () => {
    const twin = createTwin();
    const lose = (): never => {
      fault = undefined;
      throw new HeddleError("device-lost", "The GPU went away");
    };
    const engine: Engine = {
      ...twin,
      compile: async (program) => {
        const plan = fault === "compile" ? lose() : await twin.compile(program);
        const run: typeof plan.run = async (names) => (fault === "run" ? lose() : plan.run(names));
        return { ...plan, run, [Symbol.dispose]: () => plan[Symbol.dispose]() };
      },
      [Symbol.dispose]: () => void disposed.push(engine),
    };
    opened.push(engine);
    return { engine, sentence: "" };
  },
}));

const sample = sampleCharter([], { name: "e", licence: "CC0-1.0", category: "fully-open", shards: [] });
const model = { ...sample.model, channels: 8, layers: 1, heads: 2, kvHeads: 1, hidden: 8, time: 8 };
const digest = "a".repeat(64) as Digest;
const run = { run: digest, charter: { ...sample, model }, versions: [{ version: 4, digest }] } as unknown as RunView;
const request = { prompt: "a", count: 2, temperature: 0 };

test("createWriter() keeps its engine while it works, and puts it away when anything fails", async () => {
  let reachable = true;
  const fetchBlob = async () => {
    if (!reachable) {
      throw new HeddleError("unreachable", "The relay does not answer");
    }
    return floatBytes(initialParameters(model));
  };
  const writer = createWriter("auto", fetchBlob, undefined);
  const write = (): Promise<string> => writer.write(request, run, { signal: { aborted: false }, onText: () => {} });
  for (const broken of ["compile", "run"] as const) {
    fault = broken;
    await expect(write()).rejects.toThrow("The GPU went away");
    expect(disposed).toEqual(opened);
  }
  reachable = false;
  await expect(write()).rejects.toThrow("The relay does not answer");
  expect([opened.length, disposed.length]).toEqual([3, 3]);
  reachable = true;
  expect(await write()).toContain("Written by version 4");
  expect(await write()).toContain("Written by version 4");
  expect([opened.length, disposed.length]).toEqual([4, 3]);
});

test("createWriter() writes nothing for who stops it while the model is fetched, and keeps what was fetched", async () => {
  const signal = { aborted: false };
  let fetched = 0;
  const writer = createWriter(
    "auto",
    async () => {
      signal.aborted = true;
      fetched += 1;
      return floatBytes(initialParameters(model));
    },
    undefined,
  );
  let text = "";
  const write = (by: { readonly aborted: boolean }): Promise<string> =>
    writer.write(request, run, { signal: by, onText: (piece) => void (text += piece) });
  expect([await write(signal), text]).toEqual(["Stopped before the first word.", ""]);
  expect(await write({ aborted: false })).toContain("Written by version 4");
  expect(fetched).toBe(1);
});
