/**
 * The wire's test vectors: every message, signed record and ledger entry of `examples.ts` with its bytes, for other
 * implementations and against accidental change. `npx vitest run src/protocol/golden.test.ts -u` writes them anew; a change
 * there is a change of the protocol and takes a new PROTOCOL_VERSION.
 */
import { expect, test } from "vitest";
import { toHex, type Bytes } from "../base/bytes.ts";
import { decodeCharter, encodeCharter } from "./charter-codec.ts";
import { encodeEntry } from "./chain.ts";
import {
  contributionIdOf,
  contributorIdOf,
  decodeContributorMessage,
  decodeHeader,
  decodeRelayMessage,
  decodeReport,
  encodeHeader,
  encodeMessage,
  encodeReport,
  rtcProof,
  sessionProof,
} from "./codec.ts";
import {
  countingBytes,
  exampleCharter,
  exampleContributorMessages,
  exampleEvents,
  exampleHeader,
  examplePeerMessages,
  exampleRelayMessages,
  exampleReport,
} from "./examples.ts";
import { decodePeerMessage, encodePeerMessage, peerProof } from "./peer.ts";
import type { Checked } from "./verdict.ts";

interface Vector {
  readonly name: string;
  readonly value: unknown;
  readonly bytes: Bytes;
  readonly decode: ((bytes: Uint8Array) => Checked<unknown>) | null;
}

const path = new URL("../../test/golden/protocol.json", import.meta.url);

function vectors(): Vector[] {
  const hello = encodeMessage(exampleContributorMessages[0] as (typeof exampleContributorMessages)[0]);
  const nonce = countingBytes(32, 50);
  const [offer, answer] = ["v=0\r\n", "v=0\r\ns=Größe\r\n"] as const;
  const [asking, serving] = [countingBytes(32, 7), countingBytes(32)];
  const met = { meeting: nonce, blob: exampleHeader.baseDigest, asking, serving };
  return [
    ...exampleContributorMessages.map((value) => ({
      name: `contributor message ${value.type}`,
      value,
      bytes: encodeMessage(value),
      decode: decodeContributorMessage,
    })),
    ...exampleRelayMessages.map((value) => ({
      name: `relay message ${value.type}`,
      value,
      bytes: encodeMessage(value),
      decode: decodeRelayMessage,
    })),
    {
      name: "contribution header",
      value: exampleHeader,
      bytes: encodeHeader(exampleHeader),
      decode: decodeHeader,
    },
    { name: "report body", value: exampleReport, bytes: encodeReport(exampleReport), decode: decodeReport },
    { name: "charter", value: exampleCharter, bytes: encodeCharter(exampleCharter), decode: decodeCharter },
    { name: "session proof", value: { nonce, hello }, bytes: sessionProof({ nonce, hello }), decode: null },
    { name: "rtc offer proof", value: { nonce, offer }, bytes: rtcProof({ nonce, offer }), decode: null },
    {
      name: "rtc answer proof",
      value: { nonce, offer, answer },
      bytes: rtcProof({ nonce, offer, answer }),
      decode: null,
    },
    ...examplePeerMessages.map((value) => ({
      name: `peer message ${value.type}`,
      value,
      bytes: encodePeerMessage(value),
      decode: decodePeerMessage,
    })),
    { name: "peer offer proof", value: { ...met, offer }, bytes: peerProof(met, offer), decode: null },
    { name: "peer answer proof", value: { ...met, offer, answer }, bytes: peerProof(met, offer, answer), decode: null },
    ...exampleEvents.map((event, sequence) => {
      const value = { sequence, timeMs: 1_800_000_000_000, previous: contributionIdOf(nonce), event };
      return {
        name: `unsigned ledger entry ${event.type}`,
        value,
        bytes: encodeEntry(value as unknown as Parameters<typeof encodeEntry>[0]),
        decode: null,
      };
    }),
  ];
}

/** JSON for a value with bytes and numbers that JSON does not have. */
function toJson(_key: string, value: unknown): unknown {
  if (value instanceof Uint8Array) {
    return { bin: toHex(value) };
  }
  return typeof value === "number" && !Number.isFinite(value) ? { float64: String(value) } : value;
}

test("the encodings of all examples are those in test/golden/protocol.json", async () => {
  const golden = {
    origin: "npx vitest run src/protocol/golden.test.ts -u",
    notes:
      "bin: bytes in hexadecimal; float64: a number that JSON lacks; ids are SHA-256 of the header and of the public key",
    contribution: contributionIdOf(encodeHeader(exampleHeader)),
    contributor: contributorIdOf(countingBytes(32, 7)),
    vectors: vectors().map(({ name, value, bytes }) => ({ name, value, bytes: toHex(bytes) })),
  };
  await expect(`${JSON.stringify(golden, toJson, 2)}\n`).toMatchFileSnapshot(path.pathname);
});

test("the bytes of all examples decode to the examples", () => {
  for (const { value, bytes, decode } of vectors()) {
    if (decode !== null) {
      expect(decode(bytes)).toEqual({ ok: true, value });
    }
  }
});
