import { expect, test, vi } from "vitest";
import { fetchRun } from "./run.ts";

test("fetchRun() gives the record, and nothing for another answer, for what is no record and for no answer", async () => {
  const asked: string[] = [];
  const answering = (answer: () => Response) => ({
    fetch: async (input: RequestInfo | URL) => {
      asked.push(String(input));
      return answer();
    },
  });
  const record = { run: "r", versions: [] };
  expect(
    await fetchRun(
      "https://relay",
      answering(() => Response.json(record)),
    ),
  ).toEqual(record);
  await fetchRun("https://relay", { ...answering(() => Response.json(record)), versions: 3 });
  expect(asked).toEqual(["https://relay/api/run", "https://relay/api/run?versions=3"]);
  // An error has a body, too: the widget once took it for a run.
  expect(
    await fetchRun("", {
      ...answering(() => Response.json({ error: "too many" }, { status: 429 })),
      wait: async () => undefined,
    }),
  ).toBeUndefined();
  expect(
    await fetchRun(
      "",
      answering(() => new Response("<html>")),
    ),
  ).toBeUndefined();
  expect(await fetchRun("", { fetch: () => Promise.reject(new TypeError("Failed to fetch")) })).toBeUndefined();
});

test("fetchRun() gives up a relay that takes the question and says nothing", async () => {
  const silent: typeof fetch = (_input, init) =>
    new Promise((_resolve, reject) => {
      const signal = init?.signal as AbortSignal;
      signal.addEventListener("abort", () => reject(signal.reason as Error));
    });
  expect(await fetchRun("", { fetch: silent, silentMsMax: 1 })).toBeUndefined();
});

test("fetchRun() takes as long as a slow line and a busy relay need, unless a few versions do or it stalls", async () => {
  vi.useFakeTimers();
  try {
    /** Says "later" three times, then gives the record in eight pieces, one every 15 s. */
    const slow = (): typeof fetch => {
      let asked = 0;
      return async (_input, init) => {
        asked += 1;
        if (asked < 4) {
          return new Response(null, { status: 429, headers: { "retry-after": "5" } });
        }
        const pieces = [...'{"é": 1}'].map((letter) => new TextEncoder().encode(letter));
        const body = new ReadableStream<Uint8Array>({
          start: (controller) => {
            init?.signal?.addEventListener("abort", () => controller.error(init.signal?.reason));
            const timer = setInterval(() => {
              const piece = pieces.shift();
              if (init?.signal?.aborted === true) {
                clearInterval(timer);
              } else if (piece === undefined) {
                clearInterval(timer);
                controller.close();
              } else {
                controller.enqueue(piece);
              }
            }, 15_000);
          },
        });
        return new Response(body);
      };
    };
    const whole = fetchRun("", { fetch: slow() });
    const newest = fetchRun("", { fetch: slow(), versions: 3 });
    const stalled = fetchRun("", { fetch: slow(), silentMsMax: 14_000 });
    await vi.advanceTimersByTimeAsync(200_000);
    expect(await Promise.all([whole, newest, stalled])).toEqual([{ é: 1 }, undefined, undefined]);
  } finally {
    vi.useRealTimers();
  }
});
