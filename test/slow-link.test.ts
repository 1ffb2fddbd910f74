/**
 * A link whose line is slow, in virtual time. Control messages: what two large transfers have on their way is bounded by the
 * window, which fits the line, so a ping waits for that at most, whatever is queued behind it. One upload, of which a piece takes longer than
 * an upload may stall and a relay may hear nothing: neither end gives up one that gets on, and both one that does not.
 */
import { describe, expect, test } from "vitest";
import { digestOf, type Bytes } from "../src/base/bytes.ts";
import { STALL_MS, type ContributorEvent, type Pending } from "../src/contributor/state.ts";
import { wakeMs } from "../src/contributor/tick.ts";
import { digest, pending, Walk } from "../src/contributor/walk.fixture.ts";
import { fetchOver, serveOver } from "../src/contributor/transfer.ts";
import { createFramedLink, WAIT_MS, WINDOW_BYTES, WINDOW_BYTES_MIN, type FramedEnd } from "../src/net/framed-link.ts";
import { SMALL_BYTES_MAX, type Attach } from "../src/net/link.ts";
import { linkFromPort, serveLink } from "../src/net/proxy.ts";
import { decodeContributorMessage, decodeRelayMessage, encodeMessage } from "../src/protocol/codec.ts";
import { BEAT_MS, DEAD_MS, PIECE_BYTES, PIECES_AHEAD, PING_MS } from "../src/protocol/limits.ts";
import type { ContributionId } from "../src/base/bytes.ts";
import { createVirtualClock, type VirtualClock } from "../src/sim/clock.ts";

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

/** Sends frames over a line of so many bytes a second, as long as it is open. */
function lineOf(
  clock: VirtualClock,
  { bytesPerS, to, isOpen = () => true }: { bytesPerS: number; to: () => FramedEnd; isOpen?: () => boolean },
): (frame: Bytes) => void {
  let freeMs = 0;
  return (frame) => {
    freeMs = Math.max(clock.nowMs(), freeMs) + (1_000 * frame.length) / bytesPerS;
    const bytes = frame.slice();
    clock.after(freeMs + DELAY_MS - clock.nowMs(), () => (isOpen() ? to().receive(bytes) : undefined));
  };
}

/** Two uploads at once over a line of so many bytes a second each way; a ping every 500 ms, a `ready` in the middle. */
async function measure(bytesPerS: number): Promise<Measured> {
  const clock = createVirtualClock();
  const nowMs = (): number => clock.nowMs();
  let pinged: number | undefined;
  let [readied, answerMs, doneMs] = [0, 0, 0];
  const pings: number[] = [];
  const here: FramedEnd = createFramedLink({
    nowMs,
    channel: { lane: "ws", send: lineOf(clock, { bytesPerS, to: () => there }), close: () => undefined },
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
    channel: { lane: "ws", send: lineOf(clock, { bytesPerS, to: () => here }), close: () => undefined },
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

interface Uploaded {
  /** When the relay had all of it; null: never. */
  readonly doneMs: number | null;
  /** What either end gave up, and when. */
  readonly givenUp: readonly { readonly reason: string; readonly timeMs: number }[];
}

/**
 * One contribution of so many bytes over a line of so many a second up, which may carry nothing from `cutMs` on. The contributor is the
 * state machine itself, the relay confirms pieces, pings, and counts the beats in which it hears no byte, as a session's peer does.
 */
async function upload(bytes: number, bytesPerS: number, cutMs = Number.POSITIVE_INFINITY): Promise<Uploaded> {
  const clock = createVirtualClock();
  const nowMs = (): number => clock.nowMs();
  const givenUp: { reason: string; timeMs: number }[] = [];
  const giveUp = (reason: string): unknown => givenUp.push({ reason, timeMs: nowMs() });
  const pieces = Math.ceil(bytes / PIECE_BYTES);
  const made: Pending = { ...pending, pieces };
  const walk = new Walk();
  walk.connect();
  const begunMs = walk.nowMs;
  let wakes = 0;
  const dispatch = (event: ContributorEvent): void => {
    const effects = walk.on(event, begunMs + nowMs() - walk.nowMs);
    for (const effect of effects) {
      if (effect.type === "send") {
        here.link.send(encodeMessage(effect.message));
      } else if (effect.type === "upload" && pieces > 1) {
        const [header, signature] = [new Uint8Array(300), new Uint8Array(64)];
        here.link.send(encodeMessage({ type: "offer", header, signature, pieces: new Uint8Array(32 * pieces) }));
      } else if (effect.type === "upload") {
        const [header, signature, payload] = [new Uint8Array(300), new Uint8Array(64), new Uint8Array(bytes)];
        here.link.send(encodeMessage({ type: "contribute", header, signature, payload }));
      } else if (effect.type === "pieces") {
        for (let index = effect.from; index < effect.to; index += 1) {
          const piece = new Uint8Array(Math.min(PIECE_BYTES, bytes - index * PIECE_BYTES));
          here.link.send(encodeMessage({ type: "piece", contribution: made.id, index, bytes: piece }));
        }
      } else if (effect.type === "hangUp" || effect.type === "closeRtc") {
        giveUp(effect.reason);
      }
    }
    const wake = wakeMs(walk.state, walk.nowMs);
    const mine = (wakes += 1);
    if (wake !== null) {
      clock.after(wake - walk.nowMs, () => (mine === wakes ? dispatch({ type: "woke" }) : undefined));
    }
  };
  const { dial } = walk.state;
  const here: FramedEnd = createFramedLink({
    nowMs,
    channel: {
      lane: "ws",
      send: lineOf(clock, { bytesPerS, to: () => there, isOpen: () => nowMs() < cutMs }),
      close: () => undefined,
    },
    attach: () => ({
      message: (message) => {
        const read = decodeRelayMessage(message);
        expect(read.ok).toBe(true);
        if (read.ok) {
          dispatch({ type: "received", dial, lane: "ws", message: read.value });
        }
      },
      taken: () => dispatch({ type: "carried", dial, lane: "ws" }),
      closed: giveUp,
    }),
  });
  let [held, doneMs]: [number, number | null] = [0, null];
  const there: FramedEnd = createFramedLink({
    nowMs,
    channel: { lane: "ws", send: lineOf(clock, { bytesPerS: 1e6, to: () => here }), close: () => undefined },
    attach: (link) => ({
      message: (message) => {
        const read = decodeContributorMessage(message);
        const type = read.ok ? read.value.type : "ping";
        held += type === "piece" || type === "contribute" ? 1 : 0;
        if (type === "offer" || type === "piece" || type === "contribute") {
          link.send(encodeMessage({ type: "have", contribution: made.id, pieces: held }));
          doneMs = held === pieces ? nowMs() : null;
        }
      },
      closed: giveUp,
    }),
  });
  let [heard, silentBeats, beats] = [-1, 0, 0]; // there was a handshake
  const beat = (): void => {
    silentBeats = there.link.bytesReceived === heard ? silentBeats + 1 : 0;
    heard = there.link.bytesReceived;
    if (silentBeats === DEAD_MS / BEAT_MS - 1) {
      giveUp("The relay hears nothing");
    }
    beats += 1;
    if (beats % (PING_MS / BEAT_MS) === 0) {
      there.link.send(encodeMessage({ type: "ping" }));
    }
    clock.after(BEAT_MS, beat);
  };
  beat();
  dispatch({ type: "prepared", pending: made, late: null });
  dispatch({ type: "fetched", version: 0, digest: digest("0") });
  await clock.run(600_000, () => doneMs !== null || givenUp.length > 1);
  return { doneMs, givenUp };
}

describe("an upload over a slow line", () => {
  for (const [what, bytes] of [
    ["in pieces", 4 * PIECE_BYTES],
    ["that is sent whole", 111_000],
    ["that is one piece", PIECE_BYTES],
  ] as const) {
    test.each([48, 64, 128])(`${what} arrives at %i kbit/s, and neither end gives it up`, async (kilobits) => {
      const { doneMs, givenUp } = await upload(bytes, kilobits * 125);
      expect(givenUp).toEqual([]);
      expect(doneMs).toBeGreaterThan((8 * bytes) / kilobits);
      expect(doneMs).toBeLessThan((1.05 * 8 * bytes) / kilobits + 1_000);
    });
  }

  test("whose line carries nothing any more is given up by both ends in time", async () => {
    const cutMs = 60_000;
    const { doneMs, givenUp } = await upload(4 * PIECE_BYTES, 8_000, cutMs);
    expect(doneMs).toBeNull();
    expect(givenUp.map(({ reason }) => reason).toSorted()).toEqual([
      "The relay hears nothing",
      "The upload has stalled",
    ]);
    for (const { timeMs } of givenUp) {
      expect(timeMs).toBeGreaterThanOrEqual(cutMs);
      expect(timeMs).toBeLessThanOrEqual(cutMs + Math.max(STALL_MS, DEAD_MS));
    }
  });
});

/** Both ports of a channel on the virtual clock. */
function portsOn(clock: VirtualClock): [MessagePort, MessagePort] {
  const port = (to: () => MessagePort): MessagePort => {
    const postMessage = (data: unknown): void =>
      void clock.after(0, () => to().onmessage?.({ data } as MessageEvent<unknown>));
    return { postMessage, close: () => undefined, onmessage: null } as unknown as MessagePort;
  };
  const one: MessagePort = port(() => other);
  const other: MessagePort = port(() => one);
  return [one, other];
}

/** Milliseconds until a checkpoint of `bytes` has come from a contributor over a line of so many bytes a second; why not, otherwise. */
async function serve(bytes: number, bytesPerS: number, place: "process" | "worker"): Promise<number | string> {
  const clock = createVirtualClock();
  const nowMs = (): number => clock.nowMs();
  const content = new Uint8Array(bytes);
  const blob = digestOf(content);
  const ignore = (): void => undefined;
  let came: number | string | null = null;
  const leave = (): string | number => (came ??= "who serves it has left");
  const serving = serveOver({ blob, content, clock, onSent: ignore, onEnd: leave });
  const fetching = fetchOver({ blob, bytes, digests: null, hash: async () => blob, clock });
  const attachServing: Attach = (link) => {
    const [here, worker] = portsOn(clock);
    linkFromPort(worker, serving.attach);
    return serveLink(link, here);
  };
  const here: FramedEnd = createFramedLink({
    nowMs,
    channel: { lane: "rtc", send: (frame) => down(frame), close: ignore },
    attach: place === "worker" ? attachServing : serving.attach,
  });
  const there: FramedEnd = createFramedLink({
    nowMs,
    channel: { lane: "rtc", send: lineOf(clock, { bytesPerS, to: () => here }), close: ignore },
    attach: (link) => fetching.attach(link),
  });
  const down = lineOf(clock, { bytesPerS, to: () => there });
  void fetching.done.then(
    () => (came ??= clock.nowMs()),
    (error: unknown) => (came ??= String(error)),
  );
  await clock.run(60_000, () => came !== null);
  return came ?? "it did not come";
}

describe.each(["process", "worker"] as const)("a checkpoint that a contributor serves from a %s", (place) => {
  test("fills a long line: it comes at more than three quarters of its speed", async () => {
    const [bytes, bytesPerS] = [20_000_000, 10_000_000];
    expect((1_000 * bytes) / Number(await serve(bytes, bytesPerS, place))).toBeGreaterThan(0.75 * bytesPerS);
  });

  test.each([140_000, 180_000, 250_000, 400_000])("comes over a line of %i bytes a second", async (bytesPerS) => {
    const bytes = 2_300_000;
    expect((1_000 * bytes) / Number(await serve(bytes, bytesPerS, place))).toBeGreaterThan(0.9 * bytesPerS);
  });
});
