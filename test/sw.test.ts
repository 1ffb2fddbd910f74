/** The service worker over a cache and a network that fail in every way that a disk, a proxy and a line can. */
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";

type Listener = (event: object) => void;
const listeners = new Map<string, Listener>();
const kept = new Map<string, Response>();
const fetch = vi.fn<(request: Request) => Promise<Response>>();
const registration: { waiting: object | null } = { waiting: null };
const remove = vi.fn(async (_name: string) => true);
let storage: "works" | "fails" = "works";
const put = vi.fn<(request: Request, response: Response) => Promise<void>>();

beforeAll(async () => {
  vi.useFakeTimers();
  vi.stubGlobal("SHELL_FILES", ["/icon.svg"]);
  vi.stubGlobal("SHELL_VERSION", "1");
  vi.stubGlobal("location", { origin: "https://relay" });
  vi.stubGlobal("self", {
    addEventListener: (type: string, listener: Listener) => listeners.set(type, listener),
    clients: { claim: async () => undefined },
    registration,
  });
  const pathOf = (request: Request | string): string =>
    new URL(request instanceof Request ? request.url : request, "https://relay").pathname;
  const match = async (request: Request | string): Promise<Response | undefined> => kept.get(pathOf(request));
  const open = async () => {
    if (storage === "fails") {
      throw new DOMException("Unknown", "UnknownError");
    }
    return { match, put };
  };
  const keys = async (): Promise<string[]> => ["heddle-shell-0", "heddle-shell-1", "heddle-blobs", "another"];
  vi.stubGlobal("caches", { open, keys, delete: remove });
  vi.stubGlobal("fetch", fetch);
  await vi.importActual("../worker/sw.ts"); // a script, which the compiler would not import
});
afterEach(() => kept.clear());
afterAll(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** What the worker answers with, or undefined where it leaves the request alone. */
function ask(path: string): Promise<Response> | undefined {
  let answer: Promise<Response> | undefined;
  const respondWith = (response: Promise<Response>): void => {
    answer = response;
  };
  listeners.get("fetch")?.({ request: new Request(`https://relay${path}`), respondWith, waitUntil: () => undefined });
  return answer;
}

test("sw.ts opens the kept page where the relay is away, fails, or says nothing, and only then", async () => {
  const silent = new Promise<Response>(() => {});
  for (const broken of [
    () => Promise.reject(new TypeError("Failed to fetch")),
    () => Promise.resolve(new Response(null, { status: 502 })),
    () => silent,
  ]) {
    kept.set("/", new Response("kept"));
    fetch.mockImplementationOnce(broken);
    const opened = ask("/?engine=wasm");
    await vi.advanceTimersByTimeAsync(5_000);
    expect(await (await opened)?.text()).toBe("kept");
  }
  fetch.mockResolvedValueOnce(new Response("fresh"));
  expect(await (await ask("/"))?.text()).toBe("fresh");
  kept.clear();
  fetch.mockResolvedValueOnce(new Response("failed", { status: 502 }));
  expect(await (await ask("/"))?.text()).toBe("failed"); // nothing is kept yet
});

test("sw.ts waits longer for the relay's page while a newer version than the kept one is ready", async () => {
  const page = (): Promise<Response> =>
    new Promise((resolve) => setTimeout(() => resolve(new Response("fresh")), 10_000));
  kept.set("/", new Response("kept"));
  registration.waiting = {};
  fetch.mockImplementationOnce(page);
  const opened = ask("/");
  await vi.advanceTimersByTimeAsync(10_000);
  registration.waiting = null;
  expect(await (await opened)?.text()).toBe("fresh");
});

test("sw.ts lets the relay answer where the browser's storage fails", async () => {
  storage = "fails";
  fetch.mockImplementation(async () => new Response("relay", { status: 500 }));
  for (const path of ["/", "/assets/train-1.js"]) {
    expect(await (await ask(path))?.text()).toBe("relay");
  }
  fetch.mockImplementationOnce(async () => new Response("file"));
  expect(await (await ask("/icon.svg"))?.text()).toBe("file");
  fetch.mockReset();
  storage = "works";
});

test("sw.ts removes the caches of former versions, and no others", async () => {
  let done: Promise<unknown> | undefined;
  listeners.get("activate")?.({ waitUntil: (work: Promise<unknown>) => (done = work) });
  await done;
  expect(remove.mock.calls.flat()).toEqual(["heddle-shell-0", "heddle-blobs"]);
});

test("sw.ts serves a built file that a full disk cannot keep", async () => {
  put.mockRejectedValueOnce(new DOMException("Full", "QuotaExceededError"));
  fetch.mockResolvedValueOnce(new Response("text"));
  expect(await (await ask("/assets/train-1.js"))?.text()).toBe("text");
  expect(put).toHaveBeenCalledOnce();
});

test("sw.ts leaves the run's record and its blobs to the relay", () => {
  expect(["/api/run", "/index.html", `/blob/${"a".repeat(64)}`, "/observatory.html"].map(ask)).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});
