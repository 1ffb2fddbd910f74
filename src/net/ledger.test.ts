import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { once } from "node:events";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import { countingBytes } from "../protocol/examples.ts";
import { createMemoryStore } from "../store/memory.ts";
import { createLedgerFetcher, PAGE_BYTES, PAGE_ENTRIES_MAX, type LedgerPage } from "./ledger.ts";
import { serveLedger } from "./serve-ledger.ts";

/** More than a page of small entries, then some of which few fit one. */
const SMALL = PAGE_ENTRIES_MAX + 50;
const LARGE_BYTES = 200_000;
const entries: Bytes[] = [
  ...Array.from({ length: SMALL }, (_, i) => countingBytes(20 + (i % 7), i)),
  ...Array.from({ length: 12 }, (_, i) => countingBytes(LARGE_BYTES, i)),
];
const { log } = createMemoryStore();
let server: Server;
let origin: string;

beforeAll(async () => {
  await log.append(0, entries);
  server = createServer((request, response) => {
    void serveLedger(response, { log, query: new URL(request.url ?? "/", "http://relay").searchParams });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => server.close());

describe("createLedgerFetcher()", () => {
  test("reads a ledger page by page, each within its limits, to the last entry", async () => {
    const fetchLedger = createLedgerFetcher(origin);
    const read: Bytes[] = [];
    const pages: LedgerPage[] = [];
    while (read.length < entries.length) {
      const page = await fetchLedger(read.length);
      expect(page.length).toBe(entries.length);
      pages.push(page);
      read.push(...page.entries);
    }
    expect(read).toEqual(entries);
    expect(pages[0]?.entries.length).toBe(PAGE_ENTRIES_MAX);
    expect(pages[1]?.entries.length).toBe(50 + Math.ceil(PAGE_BYTES / LARGE_BYTES));
    expect(await fetchLedger(entries.length)).toEqual({ entries: [], length: entries.length });
    expect((await fetchLedger(3, 4)).entries).toEqual(entries.slice(3, 7));
  });

  test("refuses what is no page, one with too much in it, and a relay that does not answer", async () => {
    const answer = (body: Uint8Array<ArrayBuffer>, headers = { "heddle-ledger-length": "5" }) =>
      createLedgerFetcher(origin, async () => new Response(body, { headers }));
    await expect(answer(countingBytes(40))(0)).rejects.toMatchObject({ code: "bad-input" });
    await expect(answer(new Uint8Array(PAGE_BYTES * 2))(0)).rejects.toThrow();
    await expect(createLedgerFetcher(origin, async () => new Response("", { status: 200 }))(0)).rejects.toThrow("200");
    await expect(createLedgerFetcher("http://127.0.0.1:9")(0)).rejects.toMatchObject({ code: "unreachable" });
    const greedy = createLedgerFetcher(origin, (_, init) => fetch(`${origin}/?from=0&count=9`, init));
    await expect(greedy(0, 3)).rejects.toMatchObject({ code: "limit" });
    for (const query of ["from=-1", "from=x", "count=1.5", "from=99999999999"]) {
      expect((await fetch(`${origin}/?${query}`)).status).toBe(400);
    }
  });
});

test("serveLedger() reads no further than its peer does, and ends when that is gone", async () => {
  const read = vi.fn(async (_from: number, count: number) =>
    Array.from({ length: count }, () => new Uint8Array(1_000)),
  );
  const unread = Object.assign(new Writable({ write: () => undefined }), { writeHead: () => undefined });
  const query = new URLSearchParams({ from: "0", count: "1024" });
  const served = serveLedger(unread as unknown as ServerResponse, { log: { length: async () => 5_000, read }, query });
  await new Promise((settle) => setTimeout(settle, 20));
  expect(read.mock.calls.length).toBeLessThanOrEqual(2);
  unread.destroy();
  await served;
  expect(read.mock.calls.length).toBeLessThanOrEqual(3);
});
