import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { concatBytes, type Bytes } from "../base/bytes.ts";
import { FRAME_BYTES_MAX, TRANSFERS_MAX } from "../protocol/limits.ts";
import { recorder } from "./contract.ts";
import {
  ACK_BYTES,
  createFramedLink,
  QUEUE_BYTES_MAX,
  QUEUE_MESSAGES_MAX,
  SMALL_WINDOW_BYTES,
  WINDOW_BYTES,
  WINDOW_BYTES_MIN,
} from "./framed-link.ts";
import { ackFrame, closeFrame, createAssembler, dataFrame, readFrame, REASON_BYTES_MAX, type Frame } from "./frames.ts";
import { FRAME_HEADER_BYTES, PROGRESS_MS, SMALL_BYTES_MAX } from "./link.ts";

function data(transfer: number, total: number, offset: number, payloadBytes: number): Extract<Frame, { type: "data" }> {
  return { type: "data", transfer, total, offset, payload: new Uint8Array(payloadBytes) };
}

function cut(transfer: number, message: Bytes): Bytes[] {
  const frames = [];
  for (let offset = 0; offset === 0 || offset < message.length; offset += SMALL_BYTES_MAX) {
    frames.push(dataFrame(transfer, message, offset));
  }
  return frames;
}

describe("readFrame()", () => {
  test("readFrame() inverts dataFrame(), ackFrame() and closeFrame()", () => {
    const message = Uint8Array.from({ length: 100 }, (_, i) => i);
    expect(readFrame(dataFrame(7, message, 90))).toEqual({
      type: "data",
      transfer: 7,
      total: 100,
      offset: 90,
      payload: message.slice(90),
    });
    expect(readFrame(ackFrame(131_072))).toEqual({ type: "ack", bytes: 131_072 });
    expect(readFrame(closeFrame("Auf Wiederhören"))).toEqual({ type: "close", reason: "Auf Wiederhören" });
    expect(dataFrame(1, new Uint8Array(1_000_000), 0).length).toBe(FRAME_BYTES_MAX);
  });

  test("dataFrame() makes the same frame in memory that another one was made in", () => {
    const message = Uint8Array.from({ length: 100 }, (_, i) => i);
    const memory = new Uint8Array(FRAME_BYTES_MAX).fill(0xff);
    const frame = dataFrame(7, message, 90, memory);
    expect(frame).toEqual(dataFrame(7, message, 90));
    expect(frame.buffer).toBe(memory.buffer);
  });

  test("readFrame() cuts a reason to its limit and takes control characters out", () => {
    expect(closeFrame("x".repeat(2_000)).length).toBe(FRAME_HEADER_BYTES + REASON_BYTES_MAX);
    expect(readFrame(closeFrame("a\u001b[2Jb\nc"))).toEqual({ type: "close", reason: "a [2Jb c" });
    expect(readFrame(closeFrame("a\u202eb\u2028c"))).toEqual({ type: "close", reason: "a b c" });
  });

  test("readFrame() never throws, whatever the bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => readFrame(bytes).type !== undefined));
    // Nearly right: one byte of a good frame changed.
    const good = [dataFrame(1, new Uint8Array(20), 0), ackFrame(5), closeFrame("Bye")];
    const changes = fc.tuple(fc.constantFrom(...good), fc.nat(35), fc.nat(255));
    fc.assert(
      fc.property(changes, ([frame, at, value]) => {
        const bytes = frame.slice();
        bytes[at % bytes.length] = value;
        return readFrame(bytes).type !== undefined;
      }),
    );
  });
});

describe("createAssembler()", () => {
  test("createAssembler() inverts cutting, however the pieces of several messages are interleaved", () => {
    const lengths = fc.array(fc.integer({ min: 0, max: 4 * FRAME_BYTES_MAX }), {
      minLength: 1,
      maxLength: TRANSFERS_MAX,
    });
    fc.assert(
      fc.property(lengths, fc.infiniteStream(fc.nat(TRANSFERS_MAX - 1)), (sizes, choices) => {
        const messages = sizes.map((size, i) => new Uint8Array(size).fill(i + 1));
        const waiting = messages.map((message, i) => cut(i, message));
        const assembler = createAssembler({ messageBytesMax: 4 * FRAME_BYTES_MAX });
        const done: Bytes[] = [];
        while (waiting.some((frames) => frames.length > 0)) {
          const frame = waiting[choices.next().value % waiting.length]?.shift();
          const assembled = frame && assembler.push(readFrame(frame) as Extract<Frame, { type: "data" }>);
          if (assembled?.type === "message") {
            done.push(assembled.bytes);
          }
        }
        const byValue = (a: Bytes, b: Bytes): number => (a[0] ?? 0) - (b[0] ?? 0) || a.length - b.length;
        expect(concatBytes(done.sort(byValue)).length).toBe(concatBytes(messages).length);
        expect(done.map((bytes) => [bytes.length, bytes[0]])).toEqual(
          messages.sort(byValue).map((bytes) => [bytes.length, bytes[0]]),
        );
        expect(assembler.heldBytes()).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  test("createAssembler() takes memory for what has arrived, not for what is announced", () => {
    const assembler = createAssembler({ messageBytesMax: 64 * 1_048_576 });
    for (let id = 0; id < TRANSFERS_MAX; id += 1) {
      expect(assembler.push(data(id, 64 * 1_048_576, 0, 1)).type).toBe("partial");
    }
    expect(assembler.heldBytes()).toBeLessThanOrEqual(TRANSFERS_MAX * 2 * FRAME_BYTES_MAX);
    expect(assembler.push(data(99, 64 * 1_048_576, 0, 1))).toMatchObject({ type: "malformed" });
  });

  test.each([
    ["announces more than the limit", [data(1, 1_001, 0, 10)]],
    ["starts in the middle", [data(1, 100, 50, 10)]],
    ["leaves a gap", [data(1, 100, 0, 10), data(1, 100, 20, 10)]],
    ["repeats a piece", [data(1, 100, 0, 10), data(1, 100, 0, 10)]],
    ["changes its total", [data(1, 100, 0, 10), data(1, 200, 10, 10)]],
    ["goes beyond its end", [data(1, 100, 0, 10), data(1, 100, 10, 91)]],
    ["goes beyond its end at once", [data(1, 100, 0, 101)]],
    ["sends an empty piece", [data(1, 100, 0, 10), data(1, 100, 10, 0)]],
  ])("createAssembler() refuses a message that %s", (_, frames) => {
    const assembler = createAssembler({ messageBytesMax: 1_000 });
    const results = frames.map((frame) => assembler.push(frame));
    expect(results.at(-1)).toMatchObject({
      type: "malformed",
      sentence: expect.stringMatching(/^Cannot take a frame: /),
    });
  });

  test("createAssembler() never throws and never holds more than its limits, whatever the frames", () => {
    const frame = fc.record({
      type: fc.constant("data" as const),
      transfer: fc.nat(5),
      total: fc.oneof(fc.nat(200_000), fc.nat(2 ** 32 - 1)),
      offset: fc.oneof(fc.constant(0), fc.nat(200_000)),
      payload: fc.nat(SMALL_BYTES_MAX).map((length) => new Uint8Array(length)),
    });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 50 }), (frames) => {
        const assembler = createAssembler({ messageBytesMax: 150_000 });
        frames.forEach((one) => assembler.push(one));
        expect(assembler.heldBytes()).toBeLessThanOrEqual(TRANSFERS_MAX * 150_000);
      }),
    );
  });
});

test("a link over a channel that copies frames makes them in one memory, and the others do not", () => {
  const message = Uint8Array.from({ length: 3 * FRAME_BYTES_MAX }, (_, i) => i);
  const memories = [true, undefined].map((copies) => {
    const [used, taken]: [Set<ArrayBuffer>, Bytes[]] = [new Set(), []];
    const { link, receive } = createFramedLink({
      channel: {
        lane: "rtc",
        ...(copies === undefined ? {} : { copies }),
        send: (frame) => {
          used.add(frame.buffer);
          taken.push(frame.slice());
        },
        close: () => undefined,
      },
      attach: recorder().attach,
    });
    link.send(message);
    receive(ackFrame(FRAME_BYTES_MAX));
    const assembler = createAssembler({ messageBytesMax: message.length });
    const last = taken.map((frame) => assembler.push(readFrame(frame) as Extract<Frame, { type: "data" }>)).at(-1);
    expect(last).toEqual({ type: "message", bytes: message });
    return used.size;
  });
  expect(memories).toEqual([1, 4]);
});

/** A link whose peer is the test: what it sends is collected, nothing is acknowledged unless the test does. */
function oneEnd(messageBytesMax = 8 * 1_048_576, nowMs = () => 0) {
  const sent: Bytes[] = [];
  const end = recorder();
  const { link, receive, ended } = createFramedLink({
    channel: { lane: "ws", send: (frame) => sent.push(frame), close: () => undefined },
    attach: end.attach,
    messageBytesMax,
    nowMs,
  });
  return { sent, end, link, receive, ended };
}

describe("createFramedLink()", () => {
  test("createFramedLink() stops at the window and goes on when the other end acknowledges", async () => {
    const { sent, link, receive } = oneEnd();
    const sentBytes = (): number => sent.reduce((sum, frame) => sum + frame.length, 0);
    link.send(new Uint8Array(4 * WINDOW_BYTES));
    expect(sentBytes()).toBe(WINDOW_BYTES_MIN);
    receive(ackFrame(2 * FRAME_BYTES_MAX));
    expect(sentBytes()).toBe(WINDOW_BYTES_MIN + 2 * FRAME_BYTES_MAX);
    while (sentBytes() < 4 * WINDOW_BYTES) {
      receive(ackFrame(WINDOW_BYTES_MIN));
    }
    receive(ackFrame(WINDOW_BYTES_MIN - FRAME_BYTES_MAX));
    await link.drained();
  });

  test("createFramedLink() fits its window to the speed of the lane, up to a limit, and not to its pauses", () => {
    let nowMs = 0;
    const { sent, link, receive } = oneEnd(40 * WINDOW_BYTES, () => nowMs);
    let acknowledged = 0;
    const onWay = (): number => sent.reduce((sum, frame) => sum + frame.length, 0) - acknowledged;
    const acknowledge = (bytes: number, afterMs: number): void => {
      nowMs += afterMs;
      acknowledged += bytes;
      receive(ackFrame(bytes));
    };
    link.send(new Uint8Array(40 * WINDOW_BYTES));
    const step = 2 * FRAME_BYTES_MAX;
    for (const [afterMs, window] of [
      [25, WINDOW_BYTES],
      [250, step * 4],
      [1_000, WINDOW_BYTES_MIN],
      [10, WINDOW_BYTES],
    ] as const) {
      for (let i = 0; i < 20; i += 1) {
        acknowledge(step, afterMs);
      }
      expect(onWay()).toBe(window);
    }
    acknowledge(onWay() - FRAME_BYTES_MAX, 10);
    acknowledge(step, 60_000); // after a pause with next to nothing on the way
    expect(onWay()).toBe(WINDOW_BYTES);
  });

  test("createFramedLink() acknowledges each frame of a large message that comes slowly, and says that it gets on once in PROGRESS_MS", () => {
    let nowMs = 0;
    const acknowledgements: [number, number][] = [];
    let arriving = 0;
    const { receive } = createFramedLink({
      channel: {
        lane: "ws",
        send: (frame) => {
          const read = readFrame(frame);
          acknowledgements.push([nowMs, read.type === "ack" ? read.bytes : -1]);
        },
        close: () => undefined,
      },
      attach: () => ({ message: () => undefined, closed: () => undefined, arriving: () => (arriving += 1) }),
      messageBytesMax: 8 * 1_048_576,
      nowMs: () => nowMs,
    });
    const large = new Uint8Array(16 * SMALL_BYTES_MAX);
    const step = (index: number, afterMs: number): void => {
      nowMs += afterMs;
      receive(dataFrame(1, large, index * SMALL_BYTES_MAX));
    };
    [0, 1, 2].forEach((index) => step(index, 2 * PROGRESS_MS));
    expect(acknowledgements).toEqual([1, 2, 3].map((i) => [2 * i * PROGRESS_MS, FRAME_BYTES_MAX]));
    expect(arriving).toBe(3);
    [3, 4, 5, 6].forEach((index) => step(index, 1)); // a fast lane: after ACK_BYTES
    expect(acknowledgements.slice(3).map(([, bytes]) => bytes)).toEqual([ACK_BYTES, ACK_BYTES]);
    expect(arriving).toBe(3);
    for (let i = 0; i < 10; i += 1) {
      nowMs += PROGRESS_MS;
      receive(dataFrame(2 + i, new Uint8Array(10), 0)); // whole at once
    }
    expect(acknowledgements).toHaveLength(5);
  });

  test("createFramedLink() tells what is taken once in PROGRESS_MS, and nothing when nothing was", () => {
    let [nowMs, taken] = [0, 0];
    const { link, receive, stir } = createFramedLink({
      channel: { lane: "ws", send: () => undefined, close: () => undefined },
      attach: () => ({ message: () => undefined, closed: () => undefined, taken: () => (taken += 1) }),
      nowMs: () => nowMs,
    });
    link.send(new Uint8Array(4 * SMALL_BYTES_MAX));
    stir();
    receive(ackFrame(0)); // what `stir` of the other end sends
    expect(taken).toBe(0);
    for (const [afterMs, times] of [
      [0, 1],
      [PROGRESS_MS - 1, 1],
      [1, 2],
    ] as const) {
      nowMs += afterMs;
      receive(ackFrame(100));
      expect(taken).toBe(times);
    }
  });

  test("createFramedLink() ends a link whose other end acknowledges more than it was sent", () => {
    const { sent, end, link, receive } = oneEnd();
    link.send(new Uint8Array(100));
    receive(ackFrame(117));
    expect(end.reasons()).toEqual(["Cannot take an acknowledgement: got 117 bytes, sent 116"]);
    expect(readFrame(sent.at(-1) as Bytes)).toEqual({ type: "close", reason: end.reasons()[0] });
  });

  test("createFramedLink() bounds what waits for an end that takes nothing", () => {
    const { sent, end, link } = oneEnd(SMALL_BYTES_MAX);
    const message = new Uint8Array(SMALL_BYTES_MAX);
    for (let i = 0; i * SMALL_BYTES_MAX < QUEUE_BYTES_MAX + 2 * SMALL_WINDOW_BYTES; i += 1) {
      link.send(message);
    }
    expect(end.reasons()).toEqual(["The other end does not take what is sent to it"]);
    expect(sent.length).toBeGreaterThan(0);
  });

  test("createFramedLink() bounds the number of small messages that wait, too", () => {
    const { end, link } = oneEnd();
    const message = new Uint8Array(10);
    for (let i = 0; i < QUEUE_MESSAGES_MAX + SMALL_WINDOW_BYTES / 26; i += 1) {
      link.send(message);
    }
    expect(end.reasons()).toEqual([]);
    link.send(message);
    link.send(message);
    expect(end.reasons()).toEqual(["The other end does not take what is sent to it"]);
  });

  test("createFramedLink() ends the link when the channel breaks while sending", () => {
    const end = recorder();
    const { link } = createFramedLink({
      channel: {
        lane: "rtc",
        send: () => {
          throw new Error("gone");
        },
        close: () => undefined,
      },
      attach: end.attach,
    });
    link.send(Uint8Array.of(1));
    expect(end.reasons()).toEqual(["The connection broke: gone"]);
  });

  test("createFramedLink() survives any bytes: it delivers, or ends with one sentence", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 20 }), (frames) => {
        const { end, receive } = oneEnd();
        frames.forEach(receive);
        expect(end.reasons().length).toBeLessThanOrEqual(1);
      }),
    );
  });
});
