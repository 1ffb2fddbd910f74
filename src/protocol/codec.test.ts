import { encode } from "@msgpack/msgpack";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import { charterDigest, checkCharter, decodeCharter, encodeCharter } from "./charter-codec.ts";
import {
  decodeContributorMessage,
  decodeHeader,
  decodeRelayMessage,
  decodeReport,
  encodeHeader,
  encodeMessage,
  encodeReport,
  sessionProof,
} from "./codec.ts";
import {
  countingBytes,
  exampleCharter,
  exampleContributorMessages,
  exampleHeader,
  exampleRelayMessages,
  exampleReport,
} from "./examples.ts";
import {
  CONTROL_BYTES_MAX,
  MESSAGE_BYTES_MAX,
  PIECE_BYTES,
  PIECES_MAX,
  SDP_CHARS_MAX,
  TEXT_CHARS_MAX,
  PROTOCOL_VERSION,
} from "./limits.ts";
import { scanMsgpack } from "./scan.ts";
import { isReason, type Checked } from "./verdict.ts";

const messages = [...exampleContributorMessages, ...exampleRelayMessages];

function reasonOf(checked: Checked<unknown>): string {
  return checked.ok ? "accepted" : checked.reason;
}

describe("messages", () => {
  test("decodeContributorMessage() inverts encodeMessage() for every message of a contributor", () => {
    for (const message of exampleContributorMessages) {
      expect(decodeContributorMessage(encodeMessage(message))).toEqual({ ok: true, value: message });
    }
  });

  test("decodeRelayMessage() inverts encodeMessage() for every message of a relay", () => {
    for (const message of exampleRelayMessages) {
      expect(decodeRelayMessage(encodeMessage(message))).toEqual({ ok: true, value: message });
    }
  });

  test("encodeMessage() does not depend on the order in which fields were written", () => {
    for (const message of messages) {
      const reversed = Object.fromEntries(Object.entries(message).reverse()) as unknown as typeof message;
      expect(encodeMessage(reversed)).toEqual(encodeMessage(message));
    }
  });

  test("a message is refused when any field is missing, unknown or of another type", () => {
    for (const message of messages) {
      const read = exampleContributorMessages.includes(message as never)
        ? decodeContributorMessage
        : decodeRelayMessage;
      expect(reasonOf(read(encode({ ...message, extra: 1 })))).toBe("malformed");
      for (const field of Object.keys(message)) {
        const { [field]: _, ...rest } = message as unknown as Record<string, unknown>;
        expect(reasonOf(read(encode(rest)))).toBe("malformed");
        for (const wrong of [[1], {}, -1, 1.5, "x".repeat(100_000), true, countingBytes(3)]) {
          const { ok } = read(encode({ ...rest, [field]: wrong }));
          expect(ok && !["privateData", "asks", "signature", "header"].includes(field)).toBe(
            ok && ["payload", "body", "bytes"].includes(field),
          );
        }
      }
    }
  });

  test("hello of another protocol version is refused as such, whatever else it holds", () => {
    expect(
      reasonOf(decodeContributorMessage(encode({ type: "hello", protocol: PROTOCOL_VERSION + 1, novelty: "x" }))),
    ).toBe("wrong-version");
  });

  test("limits hold: control messages, text, SDP and contributions", () => {
    const hello = exampleContributorMessages[0];
    expect(reasonOf(decodeContributorMessage(encode({ ...hello, agent: "é".repeat(TEXT_CHARS_MAX) })))).toBe(
      "accepted",
    );
    expect(reasonOf(decodeContributorMessage(encode({ ...hello, agent: "é".repeat(TEXT_CHARS_MAX + 1) })))).toBe(
      "malformed",
    );
    expect(reasonOf(decodeContributorMessage(encode({ ...hello, agent: "a\nb" })))).toBe("malformed");
    const rtc = { type: "rtc", kind: "offer", signature: countingBytes(64) };
    expect(reasonOf(decodeContributorMessage(encode({ ...rtc, sdp: "x".repeat(SDP_CHARS_MAX) })))).toBe("accepted");
    expect(reasonOf(decodeContributorMessage(encode({ ...rtc, sdp: "x".repeat(SDP_CHARS_MAX + 1) })))).toBe(
      "malformed",
    );
    const report = encode({ type: "report", body: new Uint8Array(CONTROL_BYTES_MAX), signature: countingBytes(64) });
    expect(reasonOf(decodeContributorMessage(report))).toBe("oversized");
    expect(reasonOf(decodeContributorMessage(new Uint8Array(MESSAGE_BYTES_MAX + 1)))).toBe("oversized");
    const contribute = (bytes: number) => ({ ...exampleContributorMessages[3], payload: new Uint8Array(bytes) });
    expect(reasonOf(decodeContributorMessage(encode(contribute(PIECE_BYTES))))).toBe("accepted");
    expect(reasonOf(decodeContributorMessage(encode(contribute(PIECE_BYTES + 1))))).toBe("malformed");
    const piece = { type: "piece", contribution: "a".repeat(64), index: PIECES_MAX - 1 };
    const sizes = [0, 1, PIECE_BYTES, PIECE_BYTES + 1];
    const read = (bytes: number, index = 0) =>
      reasonOf(decodeContributorMessage(encode({ ...piece, index, bytes: new Uint8Array(bytes) })));
    expect(sizes.map((bytes) => read(bytes))).toEqual(["malformed", "accepted", "accepted", "malformed"]);
    expect(read(1, PIECES_MAX)).toBe("malformed");
    const { header } = exampleContributorMessages[3] as { readonly header: Bytes };
    const offer = { type: "offer", header, signature: countingBytes(64) };
    const digests = [0, 63, 32, 32 * PIECES_MAX, 32 * (PIECES_MAX + 1)];
    expect(
      digests.map((bytes) => reasonOf(decodeContributorMessage(encode({ ...offer, pieces: new Uint8Array(bytes) })))),
    ).toEqual(["malformed", "malformed", "accepted", "accepted", "malformed"]);
  });
});

describe("text", () => {
  test("that begins with a byte order mark is refused, which a long text would lose when it is read back", () => {
    const hello = exampleContributorMessages[0];
    for (const chars of [3, TEXT_CHARS_MAX]) {
      const agent = "\ufeff\ufeff".padEnd(chars, "a"); // a long one loses the first here
      expect(reasonOf(decodeContributorMessage(encode({ ...hello, agent })))).toBe("malformed");
    }
  });
});

describe("foreign bytes", () => {
  const readAll = (bytes: Uint8Array): Checked<unknown>[] => [
    decodeContributorMessage(bytes),
    decodeRelayMessage(bytes),
    decodeHeader(bytes),
    decodeReport(bytes),
    decodeCharter(bytes),
  ];
  const neverThrows = (bytes: Uint8Array): void => {
    for (const result of readAll(bytes)) {
      expect(result.ok || isReason(result.reason)).toBe(true);
    }
  };

  test("random bytes are refused with a reason and never thrown at", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), neverThrows), { numRuns: 2_000, seed: 1 });
  });

  test("any msgpack value is refused with a reason and never thrown at", () => {
    const value = fc
      .anything({ withNullPrototype: false, withBigInt: false, maxDepth: 4 })
      .filter((it) => encodable(it));
    fc.assert(
      fc.property(value, (it) => neverThrows(encode(it))),
      { numRuns: 500, seed: 2 },
    );
  });

  test("mutated messages are read or refused, never thrown at", () => {
    const originals = [...messages.map(encodeMessage), encodeHeader(exampleHeader), encodeReport(exampleReport)];
    const mutated = fc
      .tuple(fc.constantFrom(...originals), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat(40))
      .map(([original, changes, cut]) => {
        const bytes = original.slice(0, original.length - (cut > 20 ? cut - 20 : 0));
        for (const [at, value] of changes) {
          bytes[at % bytes.length] = value;
        }
        return bytes;
      });
    fc.assert(fc.property(mutated, neverThrows), { numRuns: 3_000, seed: 3 });
  });

  test("the key __proto__, integer keys and timestamps are refused", () => {
    const proto = Uint8Array.of(0x81, 0xa9, ...new TextEncoder().encode("__proto__"), 0x80);
    const integerKey = Uint8Array.of(0x81, 0x01, 0x01);
    for (const bytes of [proto, integerKey, encode({ type: new Date(0) }), Uint8Array.of(0xc1)]) {
      expect(readAll(bytes).map(reasonOf)).toEqual(Array(5).fill("malformed"));
    }
  });

  test("announced lengths are refused before anything is allocated for them", () => {
    const limits = { depthMax: 100, valuesMax: 1e9, stringBytesMax: 1e9, binBytesMax: 1e9 };
    for (const tag of [0xdd, 0xdf, 0xc6, 0xdb]) {
      const bytes = Uint8Array.of(tag, 0x0f, 0xff, 0xff, 0xff, 0);
      expect(scanMsgpack(bytes, limits)).toMatch(/announces more/);
    }
    const nested = new Uint8Array(30_000).map((_, i) => [0xdc, 0x20, 0x00][i % 3] as number);
    expect(scanMsgpack(nested, limits)).toMatch(/deeper|announces|values/);
    expect(scanMsgpack(new Uint8Array(1_000).fill(0x91), { ...limits, depthMax: 8 })).toMatch(/deeper than 8/);
  });

  test("scanMsgpack() accepts what msgpack encodes", () => {
    const limits = { depthMax: 100, valuesMax: 1e6, stringBytesMax: 1e6, binBytesMax: 1e6 };
    const value = fc.jsonValue({ maxDepth: 5 });
    fc.assert(
      fc.property(value, fc.uint8Array({ minLength: 1, maxLength: 5 }), (it, tail) => {
        const bytes = encode(it);
        expect(scanMsgpack(bytes, limits)).toBeNull();
        expect(scanMsgpack(Uint8Array.of(...bytes, ...tail), limits)).toMatch(/after the end/);
        expect(scanMsgpack(bytes.slice(0, -1), limits)).not.toBeNull();
      }),
      { numRuns: 500, seed: 4 },
    );
  });
});

describe("canonical encodings", () => {
  test("decodeHeader() and decodeReport() invert their encoders", () => {
    expect(decodeHeader(encodeHeader(exampleHeader))).toEqual({ ok: true, value: exampleHeader });
    expect(decodeReport(encodeReport(exampleReport))).toEqual({ ok: true, value: exampleReport });
    const lossless = { ...exampleReport, assignedBefore: null, assignedAfter: null, randomAfter: NaN };
    expect(decodeReport(encodeReport(lossless))).toEqual({ ok: true, value: lossless });
  });

  test("another encoding of the same header is refused: field order, long integers, float 32, float for an integer", () => {
    const reversed = encode(Object.fromEntries(Object.entries(exampleHeader).reverse()));
    expect(decodeHeader(reversed)).toMatchObject({ ok: false, reason: "malformed" });
    const bytes = encodeHeader(exampleHeader);
    const loss = indexOf(bytes, 0xcb);
    const float32 = Uint8Array.of(...bytes.slice(0, loss), 0xca, 0x40, 0x30, 0, 0, ...bytes.slice(loss + 9));
    expect(decodeHeader(float32)).toMatchObject({ ok: false, reason: "malformed" });
    const steps = indexOf(bytes, 40, indexOf(bytes, 0xa5, 400 - 200));
    const long = Uint8Array.of(...bytes.slice(0, steps), 0xcc, 40, ...bytes.slice(steps + 1));
    expect(decodeHeader(long)).toMatchObject({ ok: false, reason: "malformed" });
  });

  test("every mutation of a header is another header or refused", () => {
    const bytes = encodeHeader(exampleHeader);
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const changed: Bytes = bytes.slice();
        changed[at] = (changed[at] as number) ^ change;
        const read = decodeHeader(changed);
        expect(read.ok ? encodeHeader(read.value) : changed).toEqual(changed);
        expect(read).not.toEqual({ ok: true, value: exampleHeader });
      }),
      { numRuns: 1_000, seed: 5 },
    );
  });

  test("sessionProof() is the nonce and the digest of the hello", () => {
    const proof = sessionProof({ nonce: countingBytes(32), hello: countingBytes(3) });
    expect(proof.length).toBe(64);
    expect(proof.slice(0, 32)).toEqual(countingBytes(32));
  });
});

describe("charter", () => {
  test("decodeCharter() inverts encodeCharter() and the digest names it", () => {
    expect(decodeCharter(encodeCharter(exampleCharter))).toEqual({ ok: true, value: exampleCharter });
    expect(charterDigest({ ...exampleCharter, seed: 2 })).not.toBe(charterDigest(exampleCharter));
  });

  test("checkCharter() refuses what cannot be trained or must not travel", () => {
    const { model, round, evaluation } = exampleCharter;
    for (const bits of [1, 2, 3, 4, 64] as const) {
      expect(checkCharter({ ...exampleCharter, uplink: { ...exampleCharter.uplink, bits } }).ok).toBe(true);
    }
    for (const wrong of [
      { ...exampleCharter, model: { ...model, heads: 3 } },
      { ...exampleCharter, model: { ...model, kvHeads: 3 } },
      { ...exampleCharter, model: { ...model, channels: 65_536, layers: 1_024 } },
      { ...exampleCharter, model: { ...model, time: 0.5 } },
      { ...exampleCharter, train: [{ ...evaluation, category: "private" as const }] },
      { ...exampleCharter, evaluation: { ...evaluation, shards: [] } },
      { ...exampleCharter, inner: { ...exampleCharter.inner, learningRate: NaN } },
      { ...exampleCharter, inner: { ...exampleCharter.inner, beta2: 1 } },
      { ...exampleCharter, round: { ...round, aheadMax: round.stepsMax } },
      { ...exampleCharter, round: { ...round, decayTo: 0 } },
      { ...exampleCharter, round: { ...round, lateShare: 1.1 } },
      { ...exampleCharter, uplink: { ...exampleCharter.uplink, keep: 4_097 } },
      { ...exampleCharter, uplink: { ...exampleCharter.uplink, together: 4_097 } },
      { ...exampleCharter, inner: { ...exampleCharter.inner, matrixMomentum: 1 } },
      ...[0, 5, 8, 2.5, 32].map((bits) => ({
        ...exampleCharter,
        downlink: { ...exampleCharter.downlink, bits: bits as 2 },
      })),
    ]) {
      expect(checkCharter(wrong)).toMatchObject({ ok: false, reason: "malformed" });
    }
    const shards = Array.from({ length: 1_024 }, () => evaluation.shards[0] as (typeof evaluation.shards)[number]);
    const large = { ...exampleCharter, train: Array.from({ length: 4 }, () => ({ ...evaluation, shards })) };
    expect(checkCharter(large)).toMatchObject({ ok: false, reason: "oversized" });
  });
});

function encodable(value: unknown): boolean {
  try {
    encode(value);
    return true;
  } catch {
    return false;
  }
}

function indexOf(bytes: Uint8Array, value: number, from = 0): number {
  return bytes.indexOf(value, from);
}
