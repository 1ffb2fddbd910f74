import { expect, test } from "vitest";
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
    await fetchRun(
      "",
      answering(() => Response.json({ error: "too many" }, { status: 429 })),
    ),
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
  expect(await fetchRun("", { fetch: silent, timeoutMs: 1 })).toBeUndefined();
});
