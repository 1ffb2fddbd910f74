import { describe, expect, test, vi } from "vitest";
import { digestOf, type Bytes } from "../base/bytes.ts";
import { createDeferred } from "../base/deferred.ts";
import { PIECE_BYTES, UNCUT_BYTES_MAX } from "../protocol/limits.ts";
import { countPieces, DIGEST_BYTES, digestPieces, pieceAt } from "../protocol/pieces.ts";
import { createBlobFetcher } from "./http.ts";
import type { Begun } from "./link.ts";

const MIB = 1_048_576;
const content: Bytes = Uint8Array.from({ length: 8 * MIB }, (_, i) => Math.imul(i, 2_654_435_761) >>> 24);
const digest = digestOf(content);
const count = countPieces(content.length);
const digests = digestPieces(content, count);
/** What a fetch may be sent beyond the blob where one byte was wrong. */
const SPARE_BYTES = PIECE_BYTES + digests.length;

interface Relay {
  /** What it says of the pieces; null: it does not know that address. */
  says: Bytes | null | Promise<Bytes>;
  /** What it sends of the content, in place of `bytes` that begin at `start`; throws where the connection breaks. */
  twist(bytes: Bytes, start: number): Bytes;
}

const HONEST: Relay = { says: digests, twist: (bytes) => bytes };

/** Fetches of `blob` from a relay, one after the other, and what was asked of it and sent. */
function fetching(relay: Partial<Relay> = {}, blob = content) {
  const at: Relay = { ...HONEST, ...relay };
  const asked: string[] = [];
  const reloaded: string[] = [];
  let sentBytes = 0;
  const send = (bytes: Bytes, init: ResponseInit): Response => {
    sentBytes += bytes.length;
    return new Response(bytes, init);
  };
  const fetchBlob = createBlobFetcher({
    origin: "http://relay",
    wait: () => Promise.resolve(),
    fetch: async (address, init) => {
      if (String(address).endsWith("/pieces")) {
        asked.push("pieces");
        const says = await at.says;
        return says === null ? new Response(null, { status: 404 }) : send(says, { status: 200 });
      }
      const range = new Headers(init?.headers).get("range") as string;
      (init?.cache === "reload" ? reloaded : asked).push(range);
      const [start = 0, last = 0] = range.slice("bytes=".length).split("-").map(Number);
      const headers = { "content-range": `bytes ${start}-${Math.min(last, blob.length - 1)}/${blob.length}` };
      return send(at.twist(blob.slice(start, last + 1), start), { status: 206, headers });
    },
  });
  return {
    at,
    asked,
    reloaded,
    sentBytes: () => sentBytes,
    fetch: async (begun?: Begun) => digestOf(await fetchBlob(digestOf(blob), blob.length, { begun: begun ?? null })),
  };
}

/** Adds `by(n)` to the byte at `place` the n-th time that it is sent. */
function spoil(place: number, by: (times: number) => number): Relay["twist"] {
  let times = 0;
  return (bytes, start) => {
    if (start <= place && place < start + bytes.length) {
      times += 1;
      bytes[place - start] = (bytes[place - start] as number) + by(times);
    }
    return bytes;
  };
}

function rangeOf(index: number): string {
  const { start, end } = pieceAt(index, { bytes: content.length, count });
  return `bytes=${start}-${end - 1}`;
}

const once = (times: number): number => (times === 1 ? 1 : 0);

describe("createBlobFetcher(), of a large blob,", () => {
  test.each([0, 3 * MIB + 5, 4 * MIB - 1, 8 * MIB - 1])(
    "asks for one piece again where byte %i is wrong, past what keeps answers",
    async (place) => {
      const { fetch, asked, reloaded, sentBytes } = fetching({ twist: spoil(place, once) });
      expect(await fetch()).toBe(digest);
      expect(asked).toEqual(["bytes=0-4194303", "pieces", "bytes=4194304-8388607"]);
      expect(reloaded).toEqual([rangeOf(Math.floor(place / PIECE_BYTES))]);
      expect(sentBytes()).toBeLessThanOrEqual(content.length + SPARE_BYTES);
    },
  );

  test("repairs many pieces, each by itself", async () => {
    const places = Array.from({ length: count }, (_, index) => spoil(index * PIECE_BYTES + index, once));
    const { fetch, reloaded, sentBytes } = fetching({
      twist: (bytes, start) => places.reduce((twisted, place) => place(twisted, start), bytes),
    });
    expect(await fetch()).toBe(digest);
    expect(reloaded.toSorted()).toEqual(Array.from({ length: count }, (_, index) => rangeOf(index)).toSorted());
    expect(sentBytes()).toBe(2 * content.length + digests.length);
  });

  test.each([
    ["of one piece", digests.with(5 * DIGEST_BYTES, 0)],
    ["of the last piece", digests.with(digests.length - 1, 0)],
    ["of every piece", digests.map((byte) => byte ^ 1)],
  ])("believes two copies of a piece that are alike more than a relay that lies %s", async (_, says) => {
    const { fetch, asked, sentBytes } = fetching({ says: says as Bytes });
    expect(await fetch()).toBe(digest);
    expect(sentBytes()).toBeLessThanOrEqual(content.length + SPARE_BYTES);
    expect(asked.filter((one) => one === "pieces")).toHaveLength(1);
  });

  test("refuses what all pieces are said to be and the whole is not", async () => {
    const other = content.with(7, (content[7] as number) + 1) as Bytes;
    for (const says of [digestPieces(other, count), digests]) {
      const { fetch, sentBytes } = fetching({ says, twist: spoil(7, () => 1) }); // the same wrong byte each time
      await expect(fetch()).rejects.toMatchObject({ code: "integrity" });
      expect(sentBytes()).toBeLessThanOrEqual(content.length + SPARE_BYTES);
    }
  });

  test.each<[string, Bytes | null]>([
    ["says nothing of pieces", null],
    ["says too little", digests.slice(1)],
    ["says too much", new Uint8Array(digests.length + 1)],
    ["says something endless", new Uint8Array(100 * digests.length)],
  ])("does with the digest of the whole where the relay %s", async (_, says) => {
    const { fetch, asked, reloaded } = fetching({ says });
    expect(await fetch()).toBe(digest);
    expect([1, 2]).toContain(asked.filter((one) => one === "pieces").length); // again where it said so before the end
    expect(reloaded).toEqual([]);
    await expect(fetching({ says, twist: spoil(9, once) }).fetch()).rejects.toMatchObject({ code: "integrity" });
  });

  test("does not wait for a relay that says late what the pieces are, unless what arrived is damaged", async () => {
    const late = createDeferred<Bytes>();
    const whole = fetching({ says: late.promise });
    expect(await whole.fetch()).toBe(digest);
    expect(whole.asked).toEqual(["bytes=0-4194303", "pieces", "bytes=4194304-8388607"]);

    const spoilt = fetching({ says: late.promise, twist: spoil(9, once) });
    const fetched = spoilt.fetch();
    await vi.waitUntil(() => spoilt.asked.length === 3);
    late.resolve(digests);
    expect(await fetched).toBe(digest);
    expect(spoilt.reloaded).toEqual([rangeOf(0)]);
    expect(spoilt.sentBytes()).toBeLessThanOrEqual(content.length + SPARE_BYTES);
  });

  test("gives up a piece that is damaged each time in another way, keeps the rest, and asks for no more than it later", async () => {
    const { fetch, at, asked, reloaded, sentBytes } = fetching({ twist: spoil(MIB, (times) => times) });
    await expect(fetch()).rejects.toMatchObject({
      code: "integrity",
      message: expect.stringContaining(
        "4 times in a row, the last time because bytes 1048576 to 1310720 arrived damaged",
      ),
    });
    expect(reloaded).toEqual(Array.from({ length: 4 }, () => rangeOf(4)));
    const before = sentBytes();
    at.twist = (bytes) => bytes;
    expect(await fetch()).toBe(digest);
    expect(asked).toEqual(["bytes=0-4194303", "pieces", "bytes=4194304-8388607", "pieces"]);
    expect(sentBytes() - before).toBeLessThanOrEqual(SPARE_BYTES);
  });

  test("goes on with a damaged piece after connections that broke, in the same fetch and in the next", async () => {
    const damaged = spoil(2 * MIB, once);
    let breaks = 0;
    const { fetch, reloaded, sentBytes } = fetching({
      twist: (bytes, start) => {
        if (start === 2 * MIB && breaks > 0) {
          breaks -= 1;
          throw new Error("The connection broke");
        }
        breaks = start === 0 ? 6 : breaks;
        return damaged(bytes, start);
      },
    });
    await expect(fetch()).rejects.toMatchObject({ code: "unreachable" });
    expect(await fetch()).toBe(digest);
    expect(reloaded).toEqual(Array.from({ length: 7 }, () => rangeOf(8)));
    expect(sentBytes()).toBeLessThanOrEqual(content.length + SPARE_BYTES + digests.length);
  });

  test("goes on with what another source has begun, and sees what is wrong of it", async () => {
    const begun = { bytes: content.slice(), filled: 5 * MIB };
    begun.bytes.fill(0, begun.filled);
    const whole = fetching();
    expect(await whole.fetch(begun)).toBe(digest);
    expect(whole.asked).toEqual(["pieces", "bytes=5242880-8388607"]);

    const spoilt = { bytes: content.slice(), filled: content.length };
    spoilt.bytes[MIB] = (spoilt.bytes[MIB] as number) ^ 1;
    const last = fetching();
    expect(await last.fetch(spoilt)).toBe(digest);
    expect([last.asked, last.reloaded]).toEqual([["pieces"], [rangeOf(4)]]);
  });

  test("takes a damaged piece from a server that knows no ranges, and nothing else of its answer", async () => {
    let answers = 0;
    const fetchBlob = createBlobFetcher({
      origin: "http://relay",
      wait: () => Promise.resolve(),
      fetch: async (address) => {
        if (String(address).endsWith("/pieces")) {
          return new Response(digests);
        }
        answers += 1;
        // Each answer is damaged, at another place.
        const bytes = content.with(answers * MIB, (content[answers * MIB] as number) ^ 1) as Bytes;
        return new Response(bytes, { headers: { "content-length": String(bytes.length) } });
      },
    });
    expect(digestOf(await fetchBlob(digest, content.length))).toBe(digest);
    expect(answers).toBe(2);
  });
});

test("createBlobFetcher() asks for no pieces of a blob that is small", async () => {
  const { fetch, asked } = fetching({}, content.slice(0, UNCUT_BYTES_MAX));
  await fetch();
  expect(asked).toEqual(["bytes=0-4194303"]);
});
