import { describe, expect, test } from "vitest";
import { createPatientFetch } from "./later.ts";

function asked(...answers: readonly [status: number, retryAfter?: string][]): {
  readonly waits: readonly number[];
  ask(): Promise<Response>;
} {
  const waits: number[] = [];
  const left = [...answers];
  const fetch = createPatientFetch({
    fetch: async () => {
      const [status, retryAfter] = left.shift() ?? [500];
      return new Response("", {
        status,
        ...(retryAfter === undefined ? {} : { headers: { "retry-after": retryAfter } }),
      });
    },
    wait: async (ms) => void waits.push(ms),
  });
  return { waits, ask: () => fetch("http://relay/api/run") };
}

describe("createPatientFetch()", () => {
  test("asks again after the time that the relay names", async () => {
    const { waits, ask } = asked([429, "3"], [503], [200]);
    expect((await ask()).status).toBe(200);
    expect(waits).toEqual([3_000, 1_000]);
  });

  test("waits five seconds at most unless told otherwise, and takes nonsense for no time", async () => {
    const { waits, ask } = asked([429, "86400"], [429, "soon"], [429, "-5"], [200]);
    expect((await ask()).status).toBe(200);
    expect(waits).toEqual([5_000, 1_000, 1_000]);
  });

  test("hands on what says later again and again, and anything else at once", async () => {
    expect((await asked([429], [429], [429], [429], [200]).ask()).status).toBe(429);
    const { waits, ask } = asked([404], [200]);
    expect((await ask()).status).toBe(404);
    expect(waits).toEqual([]);
  });
});
