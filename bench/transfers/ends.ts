/**
 * The two ends of a transfer that is timed: in pieces over a link, as a contribution goes up, with the relay's own code at the
 * receiving end; and raw over a data channel, as fast as it takes messages. Whoever receives asks for a transfer and is told
 * nothing else, so that both directions are one code. Runs in Node and in browsers.
 */
import { assert } from "../../src/base/assert.ts";
import { digestOf, type Bytes } from "../../src/base/bytes.ts";
import { createTurn } from "../../src/base/turn.ts";
import { Uploads, type Offer, type Upload } from "../../src/coordinator/uploads.ts";
import type { Attach, Link } from "../../src/net/link.ts";
import {
  contributionIdOf,
  decodeContributorMessage,
  decodeHeader,
  decodeRelayMessage,
  encodeHeader,
  encodeMessage,
} from "../../src/protocol/codec.ts";
import { exampleHeader } from "../../src/protocol/examples.ts";
import { FRAME_BYTES_MAX, PIECES_AHEAD } from "../../src/protocol/limits.ts";
import type { ContributorMessage } from "../../src/protocol/messages.ts";
import { countPieces, digestPieces, pieceAt } from "../../src/protocol/pieces.ts";
import { hashBytes } from "../../src/store/hash.ts";
import type { Keys } from "../../src/store/store.ts";

/** One end of a pair. */
export interface End {
  /** Sends the payload; resolves when the other end has all of it. */
  send(): Promise<void>;
  /** Asks for the other end's payload; resolves when all of it is here and every piece has been checked. */
  receive(): Promise<void>;
  /** Resolves when neither end has anything left to do for the last transfer. */
  rest(): Promise<void>;
}

export interface PieceEnd {
  readonly attach: Attach;
  readonly end: End;
  /** Milliseconds that it took to put each payload that was received together and to check its SHA-256, after its last piece. */
  readonly wholeMs: readonly number[];
}

const ASK = encodeMessage({ type: "ready", version: 0 });

/** `keys` is where what arrives is kept. */
export function pieceEnd(payload: Bytes, keys: Keys): PieceEnd {
  const header = encodeHeader({ ...exampleHeader, payload: { digest: digestOf(payload), bytes: payload.length } });
  const contribution = contributionIdOf(header);
  const count = countPieces(payload.length);
  const offer = encodeMessage({
    type: "offer",
    header,
    signature: new Uint8Array(64),
    pieces: digestPieces(payload, count),
  });
  const uploads = new Uploads({ keys, hash: hashBytes, prefixShare: 1, nowMs: () => 0 });
  const inTurn = createTurn();
  const wholeMs: number[] = [];
  let link: Link | undefined;
  let [sent, isGone] = [0, false];
  let gone = Promise.withResolvers<void>();
  let here = Promise.withResolvers<void>();
  let idle = Promise.withResolvers<void>();

  const sendUpTo = (end: number): void => {
    for (; sent < Math.min(end, count); sent += 1) {
      const { start, end: to } = pieceAt(sent, { bytes: payload.length, count });
      link?.send(encodeMessage({ type: "piece", contribution, index: sent, bytes: payload.subarray(start, to) }));
    }
  };
  const confirm = (one: Offer, pieces: number): void =>
    link?.send(encodeMessage({ type: "have", contribution: contributionIdOf(one.header), pieces }));
  const take = async (message: Extract<ContributorMessage, { readonly type: "offer" | "piece" }>): Promise<void> => {
    if (message.type === "offer") {
      const read = decodeHeader(message.header);
      assert(read.ok, "Expected a header");
      const upload = await uploads.begin(message, read.value, null);
      assert(upload !== null, "Expected room for an upload");
      confirm(message, upload.held);
      return;
    }
    const upload = uploads.of(exampleHeader.contributor);
    assert(upload !== undefined, "Expected an offer before a piece");
    const { type } = await uploads.add(upload, message.index, message.bytes);
    assert(type === "held", `Expected a piece to be right, it was ${type}`);
    confirm(upload.offer, upload.held);
    if (upload.held === upload.count) {
      here.resolve();
      await finish(upload);
    }
  };
  const finish = async (upload: Upload): Promise<void> => {
    const begun = performance.now();
    const whole = await uploads.payload(upload);
    assert(whole !== null && (await hashBytes(whole)) === upload.header.payload.digest, "Expected what was sent");
    wholeMs.push(performance.now() - begun);
    uploads.forget(upload);
    await uploads.erase(upload);
    confirm(upload.offer, upload.held); // once more: all is done
    idle.resolve();
  };
  const attach: Attach = (made) => {
    link = made;
    return {
      message: (bytes) => {
        const read = decodeContributorMessage(bytes);
        if (read.ok && (read.value.type === "offer" || read.value.type === "piece")) {
          const message = read.value;
          void inTurn(() => take(message)).catch(here.reject);
        } else if (read.ok && read.value.type === "ready") {
          [sent, isGone] = [0, false];
          made.send(offer);
        } else {
          const said = decodeRelayMessage(bytes);
          assert(said.ok && said.value.type === "have", "Expected a confirmation");
          sendUpTo(said.value.pieces + PIECES_AHEAD);
          if (said.value.pieces === count) {
            (isGone ? idle : gone).resolve();
            isGone = true;
          }
        }
      },
      closed: (reason) => here.reject(new Error(reason)),
    };
  };
  return {
    attach,
    end: {
      send: () => {
        gone = Promise.withResolvers();
        idle = Promise.withResolvers();
        [sent, isGone] = [0, false];
        link?.send(offer);
        return gone.promise;
      },
      receive: () => {
        here = Promise.withResolvers();
        idle = Promise.withResolvers();
        link?.send(ASK);
        return here.promise;
      },
      rest: () => idle.promise,
    },
    wholeMs,
  };
}

/** What both kinds of data channel can do. */
export interface RawChannel {
  send(bytes: Bytes): void;
  buffered(): number;
  /** `wake` is called whenever no more than LOW_WATER_BYTES are buffered any more. */
  onLow(wake: () => void): void;
}

/** As measured to be the best for Chromium and node-datachannel. */
const HIGH_WATER_BYTES = 1_048_576;
export const LOW_WATER_BYTES = 262_144;

/** Messages of the largest frame, and short ones to ask and to confirm. Returns what is to be told of each message. */
export function rawEnd(
  channel: RawChannel,
  bytes: number,
): { readonly message: (bytes: Uint8Array) => void; readonly end: End } {
  const chunk: Bytes = new Uint8Array(FRAME_BYTES_MAX);
  let [left, arrived] = [0, 0];
  let gone = Promise.withResolvers<void>();
  let here = Promise.withResolvers<void>();
  const pump = (): void => {
    while (left > 0 && channel.buffered() < HIGH_WATER_BYTES) {
      const piece = left < chunk.length ? chunk.subarray(0, Math.max(left, 2)) : chunk;
      left -= piece.length;
      channel.send(piece as Bytes);
    }
  };
  channel.onLow(pump);
  const begin = (): void => {
    left = bytes;
    pump();
  };
  return {
    message: (message) => {
      if (message.length > 1) {
        arrived += message.length;
        if (arrived >= bytes) {
          arrived = 0;
          here.resolve();
          channel.send(Uint8Array.of(1));
        }
      } else if (message[0] === 1) {
        gone.resolve();
      } else {
        begin();
      }
    },
    end: {
      send: () => {
        gone = Promise.withResolvers();
        begin();
        return gone.promise;
      },
      receive: () => {
        here = Promise.withResolvers();
        channel.send(Uint8Array.of(0));
        return here.promise;
      },
      rest: async () => undefined,
    },
  };
}

/** A payload that cannot be compressed, the same at each end. */
export function payloadOf(bytes: number): Bytes {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  let state = 1;
  for (let i = 0; i < words.length; i += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = state ^ (state >>> 15);
  }
  return new Uint8Array(words.buffer, 0, bytes);
}
