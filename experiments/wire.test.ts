import { describe, expect, test } from "vitest";
import { digestOf, type Bytes, type Digest } from "../src/base/bytes.ts";
import { createRng } from "../src/base/rng.ts";
import { dataFrame } from "../src/net/frames.ts";
import { SMALL_BYTES_MAX, type Link } from "../src/net/link.ts";
import { contributionIdOf, encodeHeader, encodeMessage } from "../src/protocol/codec.ts";
import { exampleHeader } from "../src/protocol/examples.ts";
import { digestPieces, pieceAt } from "../src/protocol/pieces.ts";
import { createVirtualClock } from "../src/sim/clock.ts";
import { createNetwork, type Way } from "../src/sim/network.ts";
import { createProcess } from "../src/sim/process.ts";
import { createMemoryDisk } from "../src/store/memory.ts";
import { packUpdate } from "../src/update/pack.ts";
import { createMeter, createScale, framed, roundBytes } from "./wire.ts";

/** RFC 6455, section 5.2. */
function webSocketHeader(payload: number, way: Way): number {
  const length = payload <= 125 ? 0 : payload <= 0xffff ? 2 : 8;
  return 2 + length + (way === "up" ? 4 : 0);
}

describe("framed()", () => {
  for (const bytes of [0, 1, 100, 110, 5_000, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 200_000]) {
    test(`a message of ${bytes} bytes weighs what its frames weigh`, () => {
      const message = new Uint8Array(bytes);
      for (const way of ["up", "down"] as const) {
        let sum = 0;
        for (let offset = 0; offset === 0 || offset < bytes; offset += SMALL_BYTES_MAX) {
          const { length } = dataFrame(1, message, offset);
          sum += length + webSocketHeader(length, way);
        }
        expect(framed(bytes, way)).toBe(sum);
      }
    });
  }
});

describe("createScale()", () => {
  const delta = Float64Array.from({ length: 5_000 }, (_, i) => i / 7 - 300);
  const exactly = packUpdate(delta, { keep: 4_096, bits: 64, beta: 0 });
  const entries = new DataView(exactly.buffer, exactly.byteOffset).getUint32(12, true);

  const weigh = createScale();

  test("counts the values of an exact update as f32, in a blob and in a contribution", () => {
    expect(entries).toBeGreaterThan(4_990);
    expect(weigh(exactly, "blob", "down")).toBe(exactly.length - 4 * entries);
    const contribution = encodeMessage({
      type: "contribute",
      header: new Uint8Array(300),
      signature: new Uint8Array(64),
      payload: exactly,
    });
    const weight = weigh(contribution, "message", "up");
    expect(weight).toBe(framed(contribution.length - 4 * entries, "up"));
    // 4 bytes a value, and what says which values there are
    expect(weight / delta.length).toBeLessThan(4.2);
  });

  test("counts them so in a contribution that comes in pieces, too", () => {
    const count = 7;
    const header = encodeHeader({ ...exampleHeader, payload: { digest: digestOf(exactly), bytes: exactly.length } });
    const pieces = digestPieces(exactly, count);
    const offer = encodeMessage({ type: "offer", header, signature: new Uint8Array(64), pieces });
    expect(weigh(offer, "message", "up")).toBe(framed(offer.length, "up"));
    const contribution = contributionIdOf(header);
    let [sum, whole] = [0, 0];
    for (let index = 0; index < count; index += 1) {
      const { start, end } = pieceAt(index, { bytes: exactly.length, count });
      const piece = encodeMessage({ type: "piece", contribution, index, bytes: exactly.slice(start, end) });
      sum += weigh(piece, "message", "up");
      whole += framed(piece.length, "up");
    }
    expect(Math.abs(whole - sum - 4 * entries)).toBeLessThanOrEqual(count);
  });

  test("counts everything else as it is", () => {
    const packed = packUpdate(delta, { keep: 256, bits: 2, beta: 0 });
    expect(weigh(packed, "blob", "down")).toBe(packed.length);
    expect(weigh(new Uint8Array(40), "message", "up")).toBe(framed(40, "up"));
  });
});

test("createMeter() has counted exactly what crossed the links", async () => {
  const clock = createVirtualClock();
  const make = (name: string) =>
    createProcess({ name, clock, disk: createMemoryDisk(), rng: createRng(name), writeMsMax: 0 });
  const [relay, contributor] = [make("relay"), make("contributor")];
  const meter = createMeter((_contributor, blob) => (blob.startsWith("a") ? "updates" : "joining"));
  const faults = { delayMsMax: 50, breakShare: 0, duplicateShare: 0, failShare: 0 };
  const network = createNetwork(clock, createRng("network"), faults, {
    request: { upBytes: 200, downBytes: 500 },
    onCrossing: (crossing) => meter.note(0, crossing),
  });
  let theirs: Link | undefined;
  const ear = { message: () => undefined, closed: () => undefined };
  network.listener = {
    process: relay,
    attach: (link) => {
      theirs = link;
      return ear;
    },
    blob: async () => new Uint8Array(1_000) as Bytes,
  };
  const dialled = network.dial(contributor, () => ear, {});
  await clock.run(1_000, () => false);
  const mine = await dialled;
  const rng = createRng("messages");
  for (let i = 0; i < 40; i += 1) {
    (i % 3 === 0 ? theirs : mine)?.send(new Uint8Array(1 + rng.below(9_000)));
  }
  const other = network.fetchBlob(contributor, "a".repeat(64) as Digest, 2_000).catch(() => "another digest");
  await clock.run(10_000, () => false);
  expect(await other).toBe("another digest");
  expect(meter.up().messages).toBe(theirs?.bytesReceived);
  expect(meter.up().messages).toBe(mine.bytesSent);
  // One acknowledgement has gone the other way: 16 bytes and WebSocket's 2.
  expect(meter.up().messages).toBeGreaterThan(131_072 / 2);
  const acknowledged = Math.floor((mine.bytesSent ?? 0) / 131_072) * 18;
  expect(meter.down().messages).toBe(mine.bytesReceived + acknowledged);
  expect([meter.up().updates, meter.down().updates]).toEqual([200, 1_500]);
  expect(roundBytes(meter.down())).toBe(mine.bytesReceived + acknowledged + 1_500);
});
