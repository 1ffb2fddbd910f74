import { expect, test } from "vitest";
import { digestOf, type Bytes } from "../base/bytes.ts";
import type { Link } from "../net/link.ts";
import { PEER_BYTES_PER_S_MIN, PEER_MS_MAX, PEER_STALL_MS, PIECE_BYTES } from "../protocol/limits.ts";
import { decodePeerMessage, encodePeerMessage } from "../protocol/peer.ts";
import { createVirtualClock } from "../sim/clock.ts";
import { fetchOver, serveOver } from "./transfer.ts";

const MB = 2 ** 20;
const blob = digestOf(Uint8Array.of(1));

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
  const fetching = fetchOver({ blob, bytes: 100 * MB, clock });
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
