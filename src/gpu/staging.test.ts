import { expect, test } from "vitest";
import { createStagingPool, type Staging } from "./staging.ts";

function pooled() {
  const alive = new Set<string>();
  let made = 0;
  const pool = createStagingPool((outputs): Staging => {
    made += 1;
    const name = `${outputs} ${made}`;
    alive.add(name);
    return { buffer: { destroy: () => alive.delete(name) } as unknown as GPUBuffer, copies: [], taken: false };
  });
  return { pool, alive, made: () => made };
}

test("createStagingPool() hands out what is free again for the same outputs, and another while it is taken", () => {
  const { pool, alive, made } = pooled();
  const first = pool.take(["loss"]);
  expect(pool.take(["loss"])).not.toBe(first);
  first.taken = false;
  expect(pool.take(["loss"])).toBe(first);
  pool.take(["loss", "norm"]);
  expect(made()).toBe(3);
  pool[Symbol.dispose]();
  expect(alive.size).toBe(0);
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
