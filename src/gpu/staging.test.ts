import { expect, test, vi } from "vitest";
import { record } from "../tensor/record.ts";
import { createStaging, createStagingPool, type Staging } from "./staging.ts";

function pooled() {
  const alive = new Set<string>();
  let made = 0;
  const pool = createStagingPool((outputs): Staging => {
    made += 1;
    const name = `${outputs} ${made}`;
    alive.add(name);
    return { buffer: {} as GPUBuffer, copies: [], destroy: () => alive.delete(name), taken: false };
  });
  return { pool, alive, made: () => made };
}

test("createStagingPool() hands out what is free again for the same outputs, and another while it is taken", () => {
  const { pool, made } = pooled();
  const first = pool.take(["loss"]);
  expect(pool.take(["loss"])).not.toBe(first);
  first.taken = false;
  expect(pool.take(["loss"])).toBe(first);
  pool.take(["loss", "norm"]);
  expect(made()).toBe(3);
});

test("createStagingPool() gives up the oldest that is free at its limit, and refuses when none is", () => {
  const { pool, alive } = pooled();
  const all = Array.from({ length: 16 }, (_, i) => pool.take([`output ${i}`]));
  expect(() => pool.take(["one more"])).toThrow("16 runs are waiting");
  (all[3] as Staging).taken = false;
  pool.take(["one more"]);
  expect(alive.size).toBe(16);
  expect([...alive].some((name) => name.startsWith("output 3 "))).toBe(false);
});

test("createStaging() makes its buffer where it is asked for, as one of the Plan's own, and ends none that was not made", () => {
  vi.stubGlobal("GPUBufferUsage", { MAP_READ: 1, COPY_DST: 8 });
  const alive = new Set<unknown>();
  const createBuffer = ({ size }: GPUBufferDescriptor): GPUBuffer => {
    const buffer = { size, destroy: () => alive.delete(buffer) } as unknown as GPUBuffer;
    alive.add(buffer);
    return buffer;
  };
  const r = record("sum");
  const x = r.input("x", [4]);
  r.add(x, x);
  const places = [undefined, { buffer: {} as GPUBuffer, offset: 0, size: 16 }];
  const own = new Set<GPUBuffer>();
  const make = (): Staging =>
    createStaging({ createBuffer } as unknown as GPUDevice, r.finish(["sum"]), { places, own, outputs: ["sum"] });
  const [asked, never] = [make(), make()];
  const { buffer } = asked;
  expect([buffer.size, [...own], asked.buffer]).toEqual([16, [buffer], buffer]);
  never.destroy();
  expect([...alive]).toEqual([buffer]);
  asked.destroy();
  expect([alive.size, own.size]).toEqual([0, 0]);
  vi.unstubAllGlobals();
});
