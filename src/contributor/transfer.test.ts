import { describe, expect, test } from "vitest";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import type { Link } from "../net/link.ts";
import { PEER_BYTES_PER_S_MIN, PEER_MS_MAX, PEER_STALL_MS, PIECE_BYTES } from "../protocol/limits.ts";
import { decodePeerMessage, encodePeerMessage } from "../protocol/peer.ts";
import { countPieces, digestPieces, pieceAt } from "../protocol/pieces.ts";
import { createVirtualClock } from "../sim/clock.ts";
import { fetchOver, serveOver } from "./transfer.ts";

const MB = 2 ** 20;
const blob = digestOf(Uint8Array.of(1));

const hash = async (bytes: Bytes): Promise<Digest> => digestOf(bytes);

/** One end of a link, and when it was closed. Each message sent takes `sendMs`. */
function createEnd(clock = createVirtualClock(), sendMs = 0) {
  const sent: Bytes[] = [];
  let closedMs: number | null = null;
  const link: Link = {
    lane: "memory",
    send: (bytes) => void sent.push(bytes),
    drained: () => new Promise((resolve) => void clock.after(sendMs, resolve)),
    bytesSent: 0,
    bytesReceived: 0,
    close: () => {
      closedMs ??= clock.nowMs();
    },
  };
  return { clock, link, sent, closedMs: () => closedMs };
}

test.each([
  ["4 MB", 4 * MB, PEER_STALL_MS + (4_000 * MB) / PEER_BYTES_PER_S_MIN],
  ["100 MB", 100 * MB, PEER_MS_MAX],
])(
  "serveOver() leaves who takes a part of %s just before it would be too late, again and again",
  async (_, bytes, ms) => {
    const { clock, link, closedMs } = createEnd(createVirtualClock(), PEER_STALL_MS - 1);
    let ends = 0;
    const content = new Uint8Array(bytes);
    const serving = serveOver({ blob, content, clock, onSent: () => undefined, onEnd: () => (ends += 1) });
    serving.attach(link).message(encodePeerMessage({ type: "get", blob }));
    await clock.run(Infinity, () => closedMs() !== null);
    expect([closedMs(), ends]).toEqual([ms, 1]);
  },
);

test("fetchOver() leaves after PEER_MS_MAX who sends a large checkpoint just fast enough to be no slow one", async () => {
  const { clock, link, sent, closedMs } = createEnd();
  const fetching = fetchOver({ blob, bytes: 100 * MB, digests: null, hash, clock });
  const outcome = fetching.done.then(() => "it came", String);
  const { message } = fetching.attach(link);
  expect(decodePeerMessage(sent[0] as Bytes)).toMatchObject({ ok: true, value: { type: "get", blob } });
  const part = new Uint8Array(PIECE_BYTES);
  const send = (index: number): void => {
    message(encodePeerMessage({ type: "part", index, bytes: part }));
    if (closedMs() === null) {
      clock.after((990 * PIECE_BYTES) / PEER_BYTES_PER_S_MIN, () => send(index + 1));
    }
  };
  send(0);
  await clock.run(Infinity, () => closedMs() !== null);
  expect(await outcome).toContain("it came too slowly");
  expect(closedMs()).toBe(PEER_MS_MAX);
});

describe("fetchOver(), where it is known what the parts should be,", () => {
  const content: Bytes = Uint8Array.from({ length: 5 * PIECE_BYTES - 9 }, (_, i) => i % 253);
  const count = countPieces(content.length);

  /** What becomes of it when the parts `order` come, those of `damaged` with a wrong byte. */
  async function fetchParts(order: readonly number[], damaged: readonly number[] = [], knows = true) {
    const { clock, link, closedMs } = createEnd();
    const digests = knows ? digestPieces(content, count) : null;
    const fetching = fetchOver({ blob: digestOf(content), bytes: content.length, digests, hash, clock });
    const outcome = fetching.done.catch((error: unknown) => error);
    const { message, closed } = fetching.attach(link);
    for (const index of order) {
      const { start, end } = pieceAt(index, { bytes: content.length, count });
      const bytes = content.slice(start, end);
      bytes[3] = (bytes[3] as number) + (damaged.includes(index) ? 1 : 0);
      message(encodePeerMessage({ type: "part", index, bytes }));
      await new Promise((resolve) => setImmediate(resolve));
    }
    closed("Gone");
    return { outcome: await outcome, begun: fetching.begun(), closed: closedMs() !== null };
  }

  test("takes them in any order", async () => {
    const { outcome } = await fetchParts([3, 1, 4, 0, 2]);
    expect(outcome).toEqual(content);
  });

  test("leaves at the first that is wrong, and what came before it is of use", async () => {
    const { outcome, begun, closed } = await fetchParts([0, 1, 2, 3], [2]);
    expect([outcome, closed]).toEqual([expect.objectContaining({ code: "integrity" }), true]);
    expect(begun?.filled).toBe(pieceAt(2, { bytes: content.length, count }).start);
    expect(begun?.bytes.slice(0, begun.filled)).toEqual(content.slice(0, begun?.filled));
  });

  test("leaves also at the last", async () => {
    const { outcome, begun } = await fetchParts([0, 1, 2, 3, 4], [4]);
    expect(outcome).toMatchObject({ code: "integrity" });
    expect(begun?.filled).toBe(pieceAt(4, { bytes: content.length, count }).start);
  });

  test("has nothing that is of use where a part before it is missing, or nothing is known", async () => {
    expect((await fetchParts([1, 2, 3])).begun?.filled).toBe(0);
    const unknown = await fetchParts([0, 1, 2], [], false);
    expect([unknown.outcome, unknown.begun]).toEqual([expect.objectContaining({ code: "unreachable" }), null]);
  });
});
