/**
 * Control messages on a link whose line is slow, in virtual time: what two large transfers have on their way is bounded by the
 * window, which fits the line, so a ping waits for that at most, whatever is queued behind it.
 */
import { describe, expect, test } from "vitest";
import type { Bytes } from "../src/base/bytes.ts";
import { createFramedLink, WAIT_MS, WINDOW_BYTES, WINDOW_BYTES_MIN, type FramedEnd } from "../src/net/framed-link.ts";
import { SMALL_BYTES_MAX } from "../src/net/link.ts";
import { decodeContributorMessage, decodeRelayMessage, encodeMessage } from "../src/protocol/codec.ts";
import { DEAD_MS, PIECE_BYTES, PIECES_AHEAD } from "../src/protocol/limits.ts";
import type { ContributionId } from "../src/base/bytes.ts";
import { createVirtualClock } from "../src/sim/clock.ts";

const DELAY_MS = 30;
const PIECES = 20;
const ids = ["a", "b"].map((letter) => letter.repeat(64) as ContributionId);

interface Measured {
  /** Milliseconds from each ping to its pong. */
  readonly pings: readonly number[];
  /** From the first `ready` to its `refused`, which stands for any answer. */
  readonly answerMs: number;
  /** Megabits a second of pieces, over the whole. */
  readonly goodput: number;
}

/** Two uploads at once over a line of so many bytes a second each way; a ping every 500 ms, a `ready` in the middle. */
async function measure(bytesPerS: number): Promise<Measured> {
  const clock = createVirtualClock();
  const nowMs = (): number => clock.nowMs();
  let pinged: number | undefined;
  let [readied, answerMs, doneMs] = [0, 0, 0];
  const pings: number[] = [];
  const line = (to: () => FramedEnd): ((frame: Bytes) => void) => {
    let freeMs = 0;
    return (frame) => {
      freeMs = Math.max(clock.nowMs(), freeMs) + (1_000 * frame.length) / bytesPerS;
      const bytes = frame.slice();
      clock.after(freeMs + DELAY_MS - clock.nowMs(), () => to().receive(bytes));
    };
  };
  const here: FramedEnd = createFramedLink({
    nowMs,
    channel: { lane: "ws", send: line(() => there), close: () => undefined },
    attach: () => ({
      message: (bytes) => {
        const read = decodeRelayMessage(bytes);
        const message = read.ok ? read.value : undefined;
        if (message?.type === "have") {
          sendUpTo(message.contribution, message.pieces + PIECES_AHEAD);
        } else if (message?.type === "pong") {
          pings.push(clock.nowMs() - (pinged ?? 0));
          pinged = undefined;
        } else if (message?.type === "refused") {
          answerMs = clock.nowMs() - readied;
        }
      },
      closed: (reason) => expect(reason).toBe("never"),
    }),
  });
  const held = new Map<ContributionId, number>();
  const there: FramedEnd = createFramedLink({
    nowMs,
    channel: { lane: "ws", send: line(() => here), close: () => undefined },
    attach: (link) => ({
      message: (bytes) => {
        const read = decodeContributorMessage(bytes);
        const message = read.ok ? read.value : undefined;
        if (message?.type === "piece") {
          doneMs = clock.nowMs();
          const pieces = (held.get(message.contribution) ?? 0) + 1;
          held.set(message.contribution, pieces);
          link.send(encodeMessage({ type: "have", contribution: message.contribution, pieces }));
        } else if (message?.type === "ping") {
          link.send(encodeMessage({ type: "pong" }));
        } else if (message?.type === "ready") {
          link.send(encodeMessage({ type: "refused", reason: "busy", retryMs: 0 }));
        }
      },
      closed: (reason) => expect(reason).toBe("never"),
    }),
  });
  const sent = new Map<ContributionId, number>();
  const sendUpTo = (contribution: ContributionId, end: number): void => {
    for (let index = sent.get(contribution) ?? 0; index < Math.min(PIECES, end); index += 1) {
      here.link.send(encodeMessage({ type: "piece", contribution, index, bytes: new Uint8Array(PIECE_BYTES) }));
      sent.set(contribution, index + 1);
    }
  };
  ids.forEach((id) => sendUpTo(id, PIECES_AHEAD));
  const isDone = (): boolean => ids.every((id) => held.get(id) === PIECES);
  const ping = (): void => {
    if (pinged === undefined && !isDone()) {
      pinged = clock.nowMs();
      here.link.send(encodeMessage({ type: "ping" }));
    }
    if (readied === 0 && (held.get(ids[0] as ContributionId) ?? 0) >= 4) {
      readied = clock.nowMs();
      here.link.send(encodeMessage({ type: "ready", version: 0 }));
    }
    clock.after(500, ping);
  };
  ping();
  await clock.run(600_000, () => isDone() && pinged === undefined && answerMs > 0);
  return { pings, answerMs, goodput: (8 * ids.length * PIECES * PIECE_BYTES) / doneMs / 1_000 };
}

describe("two uploads at once over a slow line", () => {
  for (const megabits of [1, 2, 10, 100]) {
    const bytesPerS = megabits * 125_000;
    /** The window before it and a frame more, and the way there and back. */
    const windowMs = Math.max(
      Math.min(WAIT_MS, (1_000 * WINDOW_BYTES) / bytesPerS),
      (1_000 * WINDOW_BYTES_MIN) / bytesPerS,
    );
    const boundMs = windowMs + (1_000 * 2 * SMALL_BYTES_MAX) / bytesPerS + 2 * DELAY_MS + 10;

    test(`of ${megabits} Mbit/s: a ping and a "ready" are answered within ${Math.round(boundMs)} ms`, async ({
      annotate,
    }) => {
      const { pings, answerMs, goodput } = await measure(bytesPerS);
      await annotate(
        `pings ${Math.max(...pings)} ms at most, ready ${answerMs} ms, pieces ${goodput.toFixed(1)} Mbit/s`,
      );
      expect(pings.length).toBeGreaterThan(1);
      expect(Math.max(...pings, answerMs)).toBeLessThan(boundMs);
      expect(boundMs).toBeLessThan(DEAD_MS);
      expect(goodput).toBeGreaterThan(0.7 * megabits);
    });
  }
});
