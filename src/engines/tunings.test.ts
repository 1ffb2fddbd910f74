import { expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import { createVirtualClock } from "../sim/clock.ts";
import { createMemoryStore } from "../store/memory.ts";
import { barredHere, exportTried, importTried, type Circumstances } from "../gpu/tried.ts";
import type { AnyRung, Trial } from "../gpu/trials.ts";
import { inTime, keepBeside, openTunings, readTuned } from "./tunings.ts";

const here: Circumstances = { adapter: "vendor model 7", browser: "Chrome/156", kernels: "digest" };

test("openTunings() reads what was written for an adapter, also in the next session", async () => {
  const { keys } = createMemoryStore();
  await openTunings(keys).write("vendor model 7", "text");
  expect(await openTunings(keys).read("vendor model 7")).toBe("text");
  expect(await openTunings(keys).read("vendor model 8")).toBeUndefined();
});

test("openTunings() takes nothing that is too long, and a store that fails for an empty one", async () => {
  const { keys } = createMemoryStore();
  const tunings = openTunings(keys);
  await tunings.write("a", "x".repeat(20_000));
  expect(await tunings.read("a")).toBeUndefined();
  const refuse = (): Promise<never> => Promise.reject(new Error("no"));
  const broken = { ...keys, get: refuse, set: refuse };
  await openTunings(broken).write("a", "text");
  expect(await openTunings(broken).read("a")).toBeUndefined();
  await keys.set((await keys.list("tuning/"))[0] ?? "", Uint8Array.of(0xff, 0xfe) as Bytes);
  expect(await tunings.read("a")).toBe("\ufffd\ufffd");
});

test("readTuned() takes the guess where the store says that a search is barred, or does not say in time", async () => {
  const clock = createVirtualClock();
  const tried = exportTried(new Map([["nn 13", ["register"]]]), here);
  for (const [answer, tuned, barred] of [
    [async () => tried, tried, false],
    [async () => undefined, undefined, false],
    [async () => barredHere(here), undefined, true],
    [() => new Promise<never>(() => undefined), undefined, true],
  ] as const) {
    const reading = readTuned({ read: answer, write: async () => undefined }, here, clock);
    await clock.run(Infinity, () => false);
    expect(await reading).toEqual({ tuned, barred });
  }
  expect(await readTuned(undefined, here, clock)).toEqual({ tuned: undefined, barred: false });
});

test("keepBeside() takes back what its engine takes back, and nothing that another one has kept", async () => {
  const tunings = openTunings(createMemoryStore().keys);
  const text = (...tried: (readonly [Trial, readonly AnyRung[]])[]): string => exportTried(new Map(tried), here);
  const kept = async () => [...(importTried((await tunings.read(here.adapter)) ?? "", here) ?? [])];
  const [one, other] = [keepBeside(tunings, here), keepBeside(tunings, here)];
  await one(text(["nn 13", ["register"]]));
  await one(text(["nn 13", ["register", "blocks-8x4"]]));
  await one(text(["nn 13", ["register"]]));
  expect(await kept()).toEqual([["nn 13", ["register"]]]);
  await other(text(["nt 9", ["register"]]));
  await one(text(["nn 13", ["register", "tiled-64x64"]]));
  await other(text(["nt 9", ["blocks-8x4", "register"]]));
  expect(await kept()).toEqual([
    ["nn 13", ["register", "tiled-64x64"]],
    ["nt 9", ["blocks-8x4", "register"]],
  ]);
});

test("inTime() waits for what comes in time, and no longer than that", async () => {
  const wakes: (() => void)[] = [];
  let cancelled = 0;
  const clock = {
    nowMs: () => 0,
    after: (_: number, wake: () => void) => {
      wakes.push(wake);
      return () => void (cancelled += 1);
    },
  };
  expect(await inTime(Promise.resolve("text"), null, 300, clock)).toBe("text");
  await expect(inTime(Promise.reject(new Error("no")), null, 300, clock)).rejects.toThrow("no");
  const never = inTime(new Promise<string>(() => undefined), null, 300, clock);
  wakes.at(-1)?.();
  expect([await never, cancelled]).toEqual([null, 3]);
});
