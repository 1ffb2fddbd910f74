import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { sleep } from "../base/clock.ts";
import { createRng } from "../base/rng.ts";
import { createStop } from "../base/stop.ts";
import { countPieces, DIGEST_BYTES, digestPieces } from "../protocol/pieces.ts";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import { BlobPieces } from "./blob-pieces.ts";
import { LEFT_MS } from "./download.ts";
import { createBlobFetcher } from "./http.ts";
import { serveBlob } from "./serve-blob.ts";
import { systemClock } from "./system-clock.ts";

const rng = createRng("http");
const blob: Bytes = Uint8Array.from({ length: 2_500_000 }, () => rng.below(256));
const disk = createMemoryDisk();
const { blobs } = createMemoryStore({ disk });
const pieces = new BlobPieces(blobs);
const piecesBytes = countPieces(blob.length) * DIGEST_BYTES;
const digest = await blobs.put(blob);
const empty = await blobs.put(new Uint8Array(0));
const hidden = await blobs.put(Uint8Array.of(1));
const hiddenLarge = await blobs.put(new Uint8Array(2_500_000));

let server: Server;
let origin = "";
let sentBytes = 0;
/** May take a request for a blob over, to play a relay that misbehaves. */
let intercept: (request: IncomingMessage, response: ServerResponse) => boolean;

beforeEach(async () => {
  intercept = () => false;
  sentBytes = 0;
  server = createServer((request, response) => {
    if (request.url?.endsWith("/pieces") === true || !intercept(request, response)) {
      const isPublic = (wanted: Digest): boolean => wanted !== hidden && wanted !== hiddenLarge;
      const onSent = (bytes: number): void => void (sentBytes += bytes);
      void serveBlob({ request, response, name: request.url?.slice(6) ?? "", blobs, pieces, isPublic, onSent });
    }
  });
  await listen(0);
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  vi.restoreAllMocks();
  server.closeAllConnections();
  server.close();
  await once(server, "close");
});

async function listen(port: number): Promise<void> {
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
}

function fetcher(options: Partial<Parameters<typeof createBlobFetcher>[0]> = {}) {
  return createBlobFetcher({ origin, chunkBytes: 1_000_000, wait: () => Promise.resolve(), ...options });
}

describe("serveBlob()", () => {
  test.each([
    ["bytes=0-9", 206, "bytes 0-9/2500000", blob.slice(0, 10)],
    ["bytes=2499990-", 206, "bytes 2499990-2499999/2500000", blob.slice(-10)],
    ["bytes=-3", 206, "bytes 2499997-2499999/2500000", blob.slice(-3)],
    ["bytes=2499999-9999999", 206, "bytes 2499999-2499999/2500000", blob.slice(-1)],
    ["bytes=-9999999", 206, "bytes 0-2499999/2500000", blob],
    ["bytes=5-2", 200, null, blob],
    ["bytes=0-1,4-5", 200, null, blob],
    ["lines=0-1", 200, null, blob],
    ["bytes=2500000-", 416, "bytes */2500000", new Uint8Array(0)],
    ["bytes=-0", 416, "bytes */2500000", new Uint8Array(0)],
  ])("serveBlob() answers range %s with status %i", async (range, status, contentRange, body) => {
    const response = await fetch(`${origin}/blob/${digest}`, { headers: { range } });
    expect([response.status, response.headers.get("content-range")]).toEqual([status, contentRange]);
    expect(digestOf(new Uint8Array(await response.arrayBuffer()))).toBe(digestOf(body));
    expect(sentBytes).toBe(body.length);
  });

  test("serveBlob() lets every page read, cache for ever and ask whether it has changed", async () => {
    const response = await fetch(`${origin}/blob/${digest}`, { method: "HEAD" });
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "access-control-allow-origin": "*",
      "cache-control": "public, max-age=31536000, immutable",
      "content-length": "2500000",
      "accept-ranges": "bytes",
      etag: `"${digest}"`,
    });
    const again = await fetch(`${origin}/blob/${digest}`, { headers: { "if-none-match": `"${digest}"` } });
    expect(again.status).toBe(304);
    const other = await fetch(`${origin}/blob/${digest}`, { headers: { range: "bytes=0-1", "if-range": '"x"' } });
    expect(other.status).toBe(200);
    await other.body?.cancel();
    expect((await fetch(`${origin}/blob/${digest}`, { method: "OPTIONS" })).status).toBe(204);
    expect((await fetch(`${origin}/blob/${digest}`, { method: "POST" })).status).toBe(405);
  });

  test("serveBlob() answers 404 for what is absent, not public or no digest at all", async () => {
    for (const name of [digestOf(Uint8Array.of(9)), hidden, "..%2f..%2fetc%2fpasswd", "", digest.toUpperCase()]) {
      expect((await fetch(`${origin}/blob/${name}`)).status).toBe(404);
    }
  });
});

describe("serveBlob(), of what it cannot read,", () => {
  test.each([
    [
      "says so",
      () => Promise.reject(new HeddleError("store", "Cannot read a blob: EIO")),
      500,
      "Cannot read a blob: EIO",
    ],
    ["says that it is gone", async () => undefined, 404, ""],
  ])("%s before it promises a length, and breaks off where it has", async (_, slice, status, sentence) => {
    const read = vi.spyOn(blobs, "slice").mockImplementationOnce(slice);
    const response = await fetch(`${origin}/blob/${digest}`);
    expect([response.status, await response.text()]).toEqual([status, sentence]);
    read.mockImplementationOnce(async (_digest, start, end) => blob.slice(start, end)).mockImplementationOnce(slice);
    const broken = await fetch(`${origin}/blob/${digest}`);
    expect(broken.status).toBe(200);
    await expect(broken.arrayBuffer()).rejects.toThrow();
  });

  test("createBlobFetcher() takes it for absent when it was told so again and again", async () => {
    const read = vi.spyOn(blobs, "slice").mockRejectedValue(new HeddleError("store", "Cannot read a blob: EIO"));
    await expect(fetcher()(digest, blob.length)).rejects.toMatchObject({
      code: "absent",
      message: expect.stringContaining("4 times in a row, the last time because the relay cannot read it"),
    });
    expect(read).toHaveBeenCalledTimes(4);
    read.mockRestore();
    expect(digestOf(await fetcher()(digest, blob.length))).toBe(digest);
  });
});

describe("serveBlob(), of pieces,", () => {
  test("serves the digests of a large blob's pieces, which nobody should keep", async () => {
    const response = await fetch(`${origin}/blob/${digest}/pieces`);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "access-control-allow-origin": "*",
      "cache-control": "no-store",
      "content-length": `${piecesBytes}`,
      etag: `"${digest}/pieces"`,
    });
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(digestPieces(blob, 10));
    expect(sentBytes).toBe(piecesBytes);
  });

  test.each([
    ["small", `${empty}/pieces`],
    ["not public", `${hiddenLarge}/pieces`],
    ["absent", `${digestOf(Uint8Array.of(9))}/pieces`],
    ["no blob", "/pieces"],
    ["no blob at all", "pieces"],
    ["asked for twice", `${digest}/pieces/pieces`],
    ["asked for otherwise", `${digest}/pieces/`],
  ])("answers 404 for what is %s", async (_, name) => {
    expect((await fetch(`${origin}/blob/${name}`)).status).toBe(404);
  });

  test("tells who asks to come back when too many blobs are being read for it", async () => {
    vi.spyOn(pieces, "of").mockRejectedValueOnce(new HeddleError("limit", "Cannot read the pieces"));
    const response = await fetch(`${origin}/blob/${digest}/pieces`);
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
  });
});

describe("createBlobFetcher()", () => {
  test("createBlobFetcher() fetches a blob in pieces, to the byte, also an empty one", async () => {
    const ranges: (string | undefined)[] = [];
    intercept = (request) => {
      ranges.push(request.headers.range);
      return false;
    };
    expect(digestOf(await fetcher()(digest, blob.length))).toBe(digest);
    expect(ranges).toEqual(["bytes=0-999999", "bytes=1000000-1999999", "bytes=2000000-2499999"]);
    expect(await fetcher()(empty, 0)).toEqual(new Uint8Array(0));
  });

  test("createBlobFetcher() goes on at the byte where the connection broke", async () => {
    const ranges: (string | undefined)[] = [];
    intercept = (request, response) => {
      ranges.push(request.headers.range);
      if (ranges.length !== 2) {
        return false;
      }
      response.writeHead(206, { "content-range": "bytes 1000000-1999999/2500000", "content-length": 1_000_000 });
      response.write(blob.slice(1_000_000, 1_000_500), () => response.destroy());
      return true;
    };
    expect(digestOf(await fetcher()(digest, blob.length))).toBe(digest);
    expect(ranges.length).toBe(4);
    expect(ranges[2]).toMatch(/^bytes=1000(000|500)-/); // what had arrived before the break is kept
  });

  test("createBlobFetcher() asks again for the piece that a wrong byte is in, and for nothing that was kept on its way", async () => {
    const asked: (string | undefined)[][] = [];
    intercept = ({ headers }, response) => {
      asked.push([headers.range, headers["cache-control"]]);
      if (asked.length !== 1) {
        return false;
      }
      response.writeHead(206, { "content-range": "bytes 0-999999/2500000", "content-length": 1_000_000 });
      response.end(blob.slice(0, 1_000_000).fill(0, 300_000, 300_001));
      return true;
    };
    expect(digestOf(await fetcher()(digest, blob.length))).toBe(digest);
    // When it is known to be damaged depends on when the relay says what the pieces are.
    expect(asked.toSorted()).toEqual([
      ["bytes=0-999999", undefined],
      ["bytes=1000000-1999999", undefined],
      ["bytes=2000000-2499999", undefined],
      ["bytes=250000-499999", "no-cache"],
    ]);
  });

  test("createBlobFetcher() comes back when the relay says, and not for ever", async () => {
    const waits: number[] = [];
    const wait = async (ms: number): Promise<void> => void waits.push(ms);
    let refusals = 0;
    intercept = (_, response) => {
      refusals += 1;
      if (refusals > 3) {
        return false;
      }
      response.writeHead(429, { "retry-after": ["2", "9999", "soon"][refusals - 1] ?? "" }).end();
      return true;
    };
    const random = (): number => 0.5;
    expect(digestOf(await fetcher({ wait, random })(digest, blob.length))).toBe(digest);
    expect(waits).toEqual([2_500, 6_250, 1_000]);
    intercept = (_, response) => {
      response.writeHead(503).end();
      return true;
    };
    await expect(fetcher({ wait })(digest, blob.length)).rejects.toMatchObject({ code: "unreachable" });
  });

  test.each([
    ["in the same fetch", 1_500, 1],
    ["and of pauses between fetches", 2_500, 2],
    ["and of pauses between fetches", 60_000, 15],
  ])("createBlobFetcher() goes on after a restart of the relay, %s, down for %i ms", async (_, downMs, fetchesMax) => {
    const ranges: (string | undefined)[] = [];
    let [elapsedMs, sentBefore, fetches] = [0, 0, 0];
    intercept = (request, response) => {
      ranges.push(request.headers.range);
      if (ranges.length !== 2) {
        return false;
      }
      sentBefore = sentBytes + 500_000;
      response.writeHead(206, { "content-range": "bytes 1000000-1999999/2500000", "content-length": 1_000_000 });
      response.write(blob.slice(1_000_000, 1_500_000), () => {
        server.close();
        server.closeAllConnections();
      });
      return true;
    };
    const wait = async (ms: number): Promise<void> => {
      elapsedMs += ms;
      if (elapsedMs >= downMs && !server.listening) {
        await listen(Number(new URL(origin).port));
      }
    };
    const fetchBlob = fetcher({ wait, random: () => 0.9 });
    let bytes: Bytes | undefined;
    while (bytes === undefined) {
      fetches += 1;
      bytes = await fetchBlob(digest, blob.length).catch(async (error: unknown) => {
        expect(error).toMatchObject({ code: "unreachable" });
        await wait(1_000); // as a contributor does
        return undefined;
      });
    }
    expect(digestOf(bytes)).toBe(digest);
    expect(fetches).toBeLessThanOrEqual(fetchesMax);
    const resumedAt = Number(/^bytes=(\d+)-/.exec(ranges[2] ?? "")?.[1]);
    expect(resumedAt).toBeGreaterThanOrEqual(1_000_000);
    const again = 1_500_000 - resumedAt + 2 * piecesBytes; // what is said of the pieces, too
    expect(sentBefore + sentBytes - 1_000_000).toBeLessThanOrEqual(blob.length + again);
  });

  test("createBlobFetcher() keeps the last two downloads that it gave up, for some minutes, and no damaged one", async () => {
    const wanted = [1, 2, 3].map((value) => new Uint8Array(1_000).fill(value));
    const [first, second, third] = wanted.map(digestOf) as [Digest, Digest, Digest];
    const asked: string[] = [];
    let [down, nowMs, damaged] = [true, 0, 0];
    const fetchBlob = fetcher({
      triesMax: 1,
      nowMs: () => nowMs,
      fetch: async (address, init) => {
        const whole = wanted.find((one) => String(address).endsWith(digestOf(one))) as Bytes;
        const range = new Headers(init?.headers).get("range") as string;
        asked.push(range);
        const from = Number(/\d+/.exec(range)?.[0]);
        const pieces = [whole.slice(from, from + 100), whole.slice(from + 100).map((byte) => byte ^ damaged)];
        const body = new ReadableStream(
          {
            pull: (stream) => {
              const piece = pieces.shift();
              if (piece === undefined) {
                stream.close();
              } else if (pieces.length === 0 && down) {
                stream.error(new Error("the connection broke"));
              } else {
                stream.enqueue(piece);
              }
            },
          },
          { highWaterMark: 0 },
        );
        return new Response(body, { status: 206, headers: { "content-range": `bytes ${from}-999/1000` } });
      },
    });
    const startOf = async (name: Digest, code?: string): Promise<string | undefined> => {
      const result = fetchBlob(name, 1_000);
      await (code === undefined
        ? expect(result).resolves.toHaveLength(1_000)
        : expect(result).rejects.toMatchObject({ code }));
      return /\d+/.exec(asked.at(-1) ?? "")?.[0];
    };
    expect(await startOf(first, "unreachable")).toBe("0");
    expect(await startOf(second, "unreachable")).toBe("0");
    expect(await startOf(first, "unreachable")).toBe("100");
    expect(await startOf(third, "unreachable")).toBe("0"); // for which the second is let go
    down = false;
    expect(await startOf(second)).toBe("0");
    nowMs = LEFT_MS - 1;
    expect(await startOf(first)).toBe("200");
    nowMs = LEFT_MS;
    expect(await startOf(third)).toBe("0");
    damaged = 1;
    expect(await startOf(third, "integrity")).toBe("0");
    expect(await startOf(third, "integrity")).toBe("0");
  });

  test("createBlobFetcher() takes a whole answer from a server that knows no ranges", async () => {
    intercept = (_, response) => {
      response.writeHead(200, { "content-length": blob.length }).end(blob);
      return true;
    };
    expect(digestOf(await fetcher()(digest, blob.length))).toBe(digest);
  });

  test("createBlobFetcher() refuses a blob above the limit before it takes memory or reads on", async () => {
    intercept = (_, response) => {
      response.writeHead(206, { "content-range": "bytes 0-999999/900000000000", "content-length": 1_000_000 });
      response.write(new Uint8Array(10));
      return true;
    };
    await expect(fetcher()(digest, 3_000_000)).rejects.toMatchObject({ code: "limit" });
  });

  test("createBlobFetcher() refuses bytes with another digest", async () => {
    const damaged = await blobs.put(Uint8Array.of(1, 2, 3, 4));
    disk.blobs.set(damaged, Uint8Array.of(1, 2, 3, 5));
    await expect(fetcher()(damaged, 4)).rejects.toMatchObject({ code: "integrity" });
  });

  test.each<[string, Parameters<typeof fetcher>[0], () => void]>([
    ["while nothing comes", {}, () => undefined],
    [
      "while it waits",
      { wait: (_ms, signal) => sleep(systemClock, 60_000, signal) },
      () => server.closeAllConnections(),
    ],
  ])("createBlobFetcher() ends %s when it is not wanted any more", async (_, options, happen) => {
    const stop = createStop();
    let requests = 0;
    intercept = (_request, response) => {
      requests += 1;
      response.writeHead(206, { "content-range": "bytes 0-999999/2500000", "content-length": 1_000_000 });
      response.write(blob.slice(0, 100), () => {
        happen();
        setTimeout(() => stop.abort(), 50);
      });
      return true;
    };
    const error = await fetcher(options)(digest, blob.length, { signal: stop }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "unreachable", message: expect.stringContaining("not wanted any more") });
    await expect(fetcher()(digest, blob.length, { signal: stop })).rejects.toMatchObject({ code: "unreachable" });
    expect(requests).toBe(1);
  });

  test("createBlobFetcher() ends while it waits for what the pieces of a damaged blob are", async () => {
    const stop = createStop();
    const fetchBlob = fetcher({
      chunkBytes: blob.length,
      fetch: async (address, init) => {
        if (!String(address).endsWith("/pieces")) {
          return new Response(new Uint8Array(blob.length), { headers: { "content-length": String(blob.length) } });
        }
        setTimeout(() => stop.abort(), 50);
        return new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(new Error("Aborted"))));
      },
    });
    await expect(fetchBlob(digest, blob.length, { signal: stop })).rejects.toMatchObject({ code: "unreachable" });
  });

  test("createBlobFetcher() gives up after triesMax failures in a row and says why", async () => {
    let requests = 0;
    intercept = (_, response) => {
      requests += 1;
      response.destroy();
      return true;
    };
    await expect(fetcher({ triesMax: 3 })(digest, blob.length)).rejects.toMatchObject({ code: "unreachable" });
    expect(requests).toBe(3);
  });

  test("createBlobFetcher() tells what is not there from a relay that does not answer, at the first answer", async () => {
    let requests = 0;
    let status = 404;
    intercept = (_, response) => {
      requests += 1;
      response.writeHead(status).end();
      return true;
    };
    await expect(fetcher()(digest, blob.length)).rejects.toMatchObject({ code: "absent" });
    status = 410;
    await expect(fetcher()(digest, blob.length)).rejects.toMatchObject({ code: "absent" });
    expect(requests).toBe(2);
    server.close();
    server.closeAllConnections();
    await expect(fetcher()(digest, blob.length)).rejects.toMatchObject({ code: "unreachable" });
    await listen(Number(new URL(origin).port));
  });

  test.each([
    ["could not be reached before it said so", [0, 0, 0, 500]],
    ["could not be reached after it had said so", [500, 0, 500, 500]],
  ])("createBlobFetcher() takes nothing for absent where the relay %s", async (_, answers) => {
    intercept = (_request, response) => {
      const status = answers.shift() ?? 0;
      if (status === 0) {
        response.destroy();
      } else {
        response.writeHead(status).end();
      }
      return true;
    };
    await expect(fetcher()(digest, blob.length)).rejects.toMatchObject({ code: "unreachable" });
    expect(answers).toEqual([]);
  });

  test("createBlobFetcher() gives up on a relay that goes silent or brings nothing new", async () => {
    intercept = (_, response) => {
      response.writeHead(206, { "content-range": "bytes 0-999999/2500000", "content-length": 1_000_000 });
      response.write(blob.slice(0, 100));
      return true;
    };
    const silent = fetcher({ triesMax: 2, stallMs: 20 })(digest, blob.length);
    await expect(silent).rejects.toMatchObject({ code: "unreachable" });
    intercept = (_, response) => {
      response.writeHead(206, { "content-range": "bytes 0-9/2500000", "content-length": 10 }).end(blob.slice(0, 10));
      return true;
    };
    await expect(fetcher()(digest, blob.length)).rejects.toMatchObject({ code: "unreachable" });
  });
});
