/**
 * The ends of a transfer that is timed. Up, as a contribution goes: pieces over a link that stays open, with the relay's own code at the
 * receiving end. Down, as a checkpoint comes over WebRTC: parts over a link of its own, as contributors serve and fetch it. And
 * raw, both ways, over a data channel that stays open, as fast as it takes messages. Runs in Node and in browsers.
 */
import { assert } from "../../src/base/assert.ts";
import { digestOf, type Bytes, type Digest } from "../../src/base/bytes.ts";
import { createTurn } from "../../src/base/turn.ts";
import { fetchOver, serveOver } from "../../src/contributor/transfer.ts";
import { Uploads, type Offer, type Upload } from "../../src/coordinator/uploads.ts";
import type { Attach, Link } from "../../src/net/link.ts";
import { systemClock } from "../../src/net/system-clock.ts";
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

/** The near end of both directions. */
export interface End {
  /** Sends the payload; resolves with the milliseconds until the other end has all of it, checked and kept. */
  send(): Promise<number>;
  /** Has the other end send its payload; resolves with the milliseconds until all of it is here and every part has been checked. */
  receive(): Promise<number>;
  /** Resolves when neither end has anything left to do for the last transfer. */
  rest(): Promise<void>;
}

export type Dial = (attach: Attach) => Promise<Link>;

export interface LinkEnd extends End {
  /** Bytes that the links have carried, both ways. */
  carried(): number;
  /** Milliseconds that it took to check the SHA-256 of each payload that was received. */
  readonly wholeMs: readonly number[];
}

/** `up` dials the link that stays open to `takeUploads`, `down` one to `servePayload` for each transfer. */
export async function linkEnd(
  payload: Bytes,
  { up, down }: { readonly up: Dial; readonly down: Dial },
): Promise<LinkEnd> {
  const count = countPieces(payload.length);
  const digest = digestOf(payload);
  const digests = digestPieces(payload, count);
  const header = encodeHeader({ ...exampleHeader, payload: { digest, bytes: payload.length } });
  const contribution = contributionIdOf(header);
  const wholeMs: number[] = [];
  let sent = 0;
  let gone: PromiseWithResolvers<void> | null = null;
  let idle: PromiseWithResolvers<void> | null = null;
  let carriedDown = 0;
  let received: Bytes | null = null;

  const sendUpTo = (end: number): void => {
    for (; sent < Math.min(end, count); sent += 1) {
      const { start, end: to } = pieceAt(sent, { bytes: payload.length, count });
      link.send(encodeMessage({ type: "piece", contribution, index: sent, bytes: payload.subarray(start, to) }));
    }
  };
  const link = await up(() => ({
    message: (bytes) => {
      const said = decodeRelayMessage(bytes);
      assert(said.ok && said.value.type === "have", "Expected a confirmation");
      sendUpTo(said.value.pieces + PIECES_AHEAD);
      if (said.value.pieces === count) {
        (gone ?? idle)?.resolve(); // said twice: the last piece is kept, all is done
        gone = null;
      }
    },
    closed: (reason) => (gone ?? idle)?.reject(new Error(reason)),
  }));
  return {
    send: async () => {
      const begun = performance.now();
      gone = Promise.withResolvers();
      idle = Promise.withResolvers();
      sent = 0;
      link.send(encodeMessage({ type: "offer", header, signature: new Uint8Array(64), pieces: digests }));
      await gone.promise;
      return performance.now() - begun;
    },
    receive: async () => {
      const fetching = fetchOver({ blob: digest, bytes: payload.length, digests, hash: hashBytes, clock: systemClock });
      let begun = 0;
      const from = await down((made) => {
        begun = performance.now();
        return fetching.attach(made);
      });
      received = await fetching.done;
      const tookMs = performance.now() - begun;
      carriedDown += from.bytesSent + from.bytesReceived;
      return tookMs;
    },
    rest: async () => {
      await idle?.promise;
      if (received !== null) {
        const begun = performance.now();
        assert((await hashBytes(received)) === digest, "Expected what was served");
        wholeMs.push(performance.now() - begun);
        received = null;
      }
    },
    carried: () => link.bytesSent + link.bytesReceived + carriedDown,
    wholeMs,
  };
}

/** The relay's end of uploads; `keys` is where they are kept. */
export function takeUploads(keys: Keys): Attach {
  const uploads = new Uploads({ keys, hash: hashBytes, prefixShare: 1, nowMs: () => 0 });
  const inTurn = createTurn();
  return (link) => {
    const confirm = ({ header }: Offer, pieces: number): void =>
      link.send(encodeMessage({ type: "have", contribution: contributionIdOf(header), pieces }));
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
        await finish(upload);
      }
    };
    const finish = async (upload: Upload): Promise<void> => {
      const whole = await uploads.payload(upload);
      assert(whole !== null && (await hashBytes(whole)) === upload.header.payload.digest, "Expected what was sent");
      uploads.forget(upload);
      await uploads.erase(upload);
      confirm(upload.offer, upload.held); // once more: all is done
    };
    return {
      message: (bytes) => {
        const read = decodeContributorMessage(bytes);
        assert(read.ok && (read.value.type === "offer" || read.value.type === "piece"), "Expected an upload");
        const message = read.value;
        inTurn(() => take(message)).catch((error: unknown) => link.close(String(error)));
      },
      closed: () => undefined,
    };
  };
}

/** The end that serves `payload`, whose digest is `blob`, once. */
export function servePayload(payload: Bytes, blob: Digest): Attach {
  const ignore = (): void => undefined;
  return serveOver({ blob, content: payload, clock: systemClock, onSent: ignore, onEnd: ignore }).attach;
}

/** What both kinds of data channel can do. */
export interface RawChannel {
  send(bytes: Bytes): void;
  buffered(): number;
  /** `wake` is called whenever no more than RAW_LOW_WATER_BYTES are buffered any more. */
  onLow(wake: () => void): void;
}

/** As measured to be the best for Chromium and node-datachannel. */
const HIGH_WATER_BYTES = 1_048_576;
export const RAW_LOW_WATER_BYTES = 262_144;

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
      send: async () => {
        const begun = performance.now();
        gone = Promise.withResolvers();
        begin();
        await gone.promise;
        return performance.now() - begun;
      },
      receive: async () => {
        const begun = performance.now();
        here = Promise.withResolvers();
        channel.send(Uint8Array.of(0));
        await here.promise;
        return performance.now() - begun;
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
