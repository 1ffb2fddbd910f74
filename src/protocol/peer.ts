/**
 * What two contributors say to each other on the link between them: one asks for a checkpoint by its digest, the other sends it
 * in parts (`pieces.ts`), in any order, each once. Whoever asked knows the number of bytes from the relay and checks the SHA-256,
 * of each part where it knows it, and at the end. And what both sign before there is that link, under purposes of their own.
 */
import { concatBytes, digestOf, fromHex, textBytes, type Bytes, type Digest } from "../base/bytes.ts";
import {
  binary,
  checked,
  decodeValue,
  digest,
  encodeValue,
  integer,
  oneOf,
  record,
  tagged,
  type Reader,
} from "./fields.ts";
import { BLOB_BYTES_MAX, PIECE_BYTES } from "./limits.ts";
import type { ScanLimits } from "./scan.ts";
import type { Checked } from "./verdict.ts";

export type PeerMessage =
  | { readonly type: "get"; readonly blob: Digest }
  /** Part number `index`, from 0, of as many as PIECE_BYTES make necessary. */
  | { readonly type: "part"; readonly index: number; readonly bytes: Bytes };

const SCAN: ScanLimits = { depthMax: 1, valuesMax: 8, stringBytesMax: 64, binBytesMax: PIECE_BYTES };

const reader: Reader<PeerMessage> = tagged<PeerMessage>({
  get: record<Extract<PeerMessage, { readonly type: "get" }>>({ type: oneOf(["get"]), blob: digest<Digest>() }),
  part: record<Extract<PeerMessage, { readonly type: "part" }>>({
    type: oneOf(["part"]),
    index: integer(0, BLOB_BYTES_MAX / PIECE_BYTES - 1),
    bytes: binary(1, PIECE_BYTES),
  }),
});

/** The bytes of a message between contributors. One that is not valid is a bug of the caller and throws. */
export function encodePeerMessage(message: PeerMessage): Bytes {
  const content = message.type === "part" ? message.bytes.length : 0;
  return encodeValue(reader, message, `peer message "${message.type}"`, content + 256);
}

/** Reads what another contributor sent. The bytes of a part are a view into `bytes`. */
export function decodePeerMessage(bytes: Uint8Array): Checked<PeerMessage> {
  return checked(() => reader(decodeValue(bytes, SCAN), "peer message"));
}

export interface Meeting {
  /** 32 bytes that the relay gives both. */
  readonly meeting: Uint8Array;
  readonly blob: Digest;
  /** Public keys of who asks and of who serves. */
  readonly asking: Uint8Array;
  readonly serving: Uint8Array;
}

/**
 * What a contributor signs of a description for another, under "peer-offer" who asks and under "peer-answer" who serves: the
 * meeting, the checkpoint, both keys, then the SHA-256 of the offer, and in an answer that of the answer. So whoever carries the
 * descriptions can swap none, DTLS fingerprints included, and none serves in another meeting.
 */
export function peerProof({ meeting, blob, asking, serving }: Meeting, offer: string, answer?: string): Bytes {
  const signed = answer === undefined ? [offer] : [offer, answer];
  return concatBytes([
    meeting,
    fromHex(blob),
    asking,
    serving,
    ...signed.map((sdp) => fromHex(digestOf(textBytes(sdp)))),
  ]);
}
