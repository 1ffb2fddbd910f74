/**
 * What crosses the network, to the byte, as it would over a WebSocket and HTTP: payloads and messages as they are, the
 * frames' headers and acknowledgements, WebSocket's own headers, and HTTP's. TCP, TLS and below are left out. Values that
 * travel as f64 for the sake of exact sums are counted as f32, which is what dense DiLoCo, FedAvg and data parallel training
 * send.
 */
import type { Bytes, ContributionId, Digest } from "../src/base/bytes.ts";
import { FRAME_HEADER_BYTES, SMALL_BYTES_MAX } from "../src/net/link.ts";
import { contributionIdOf, decodeContributorMessage, decodeHeader } from "../src/protocol/codec.ts";
import { FRAME_BYTES_MAX } from "../src/protocol/limits.ts";
import type { ContributorMessage } from "../src/protocol/messages.ts";
import type { Crossing, Way } from "../src/sim/network.ts";
import { HEADER_BYTES } from "../src/update/format.ts";

/** Head of a blob's request and of its answer between Node's `fetch` and our relay, read from the socket on 2026-11-28. */
export const REQUEST = { upBytes: 258, downBytes: 542 } as const;
/** A receiver acknowledges after so many bytes of frames (`net/framed-link.ts`). */
const ACKNOWLEDGE_BYTES = 131_072;
/** A contribution is longer, and so are its pieces. */
const CONTROL_BYTES = 500;

/** Bytes by what they were for. */
export interface Traffic {
  /** What is sent once to take part at all: texts and the first checkpoint. */
  readonly joining: number;
  /** Updates of the shared base, and checkpoints and texts for those who lost theirs. */
  readonly updates: number;
  /** Others' contributions, to be measured. */
  readonly judging: number;
  /** Messages: contributions on their way up, assignments, verdicts, heartbeats. */
  readonly messages: number;
}

export const NO_TRAFFIC: Traffic = { joining: 0, updates: 0, judging: 0, messages: 0 };

/** All but what is sent once. */
export function roundBytes({ updates, judging, messages }: Traffic): number {
  return updates + judging + messages;
}

/** Says what a message or blob weighs. */
export type Scale = (bytes: Bytes, what: "message" | "blob", way: Way) => number;

/** One scale weighs all messages of a run: what is spared in an update that comes in pieces is known from its first piece on. */
export function createScale(): Scale {
  /** Of each update that comes in pieces: its bytes, and the share of them that is spared. */
  const updates = new Map<ContributionId, { readonly bytes: number; share: number }>();
  const sparedIn = (message: ContributorMessage | null): number => {
    switch (message?.type) {
      case "contribute":
        return 4 * entriesIn(message.payload);
      case "offer": {
        const header = decodeHeader(message.header);
        updates.set(contributionIdOf(message.header), { bytes: header.ok ? header.value.payload.bytes : 1, share: 0 });
        return 0;
      }
      case "piece": {
        const update = updates.get(message.contribution);
        if (update !== undefined && message.index === 0) {
          update.share = (4 * entriesIn(message.bytes)) / update.bytes;
        }
        return Math.round((update?.share ?? 0) * message.bytes.length);
      }
      default:
        return 0;
    }
  };
  return (bytes, what, way) =>
    what === "blob"
      ? bytes.length - 4 * entriesIn(bytes)
      : framed(bytes.length - sparedIn(way === "up" ? updateIn(bytes) : null), way);
}

/** A message's bytes with its frames' headers and the WebSocket's. */
export function framed(bytes: number, way: Way): number {
  const frames = Math.max(1, Math.ceil(bytes / SMALL_BYTES_MAX));
  const last = bytes - (frames - 1) * SMALL_BYTES_MAX;
  return (
    bytes +
    frames * FRAME_HEADER_BYTES +
    (frames - 1) * webSocketBytes(FRAME_BYTES_MAX, way) +
    webSocketBytes(last + FRAME_HEADER_BYTES, way)
  );
}

/** RFC 6455: 2 bytes, with a longer length 4 or 10, and the mask's 4 from clients. */
function webSocketBytes(payload: number, way: Way): number {
  return (payload < 126 ? 2 : payload < 65_536 ? 4 : 10) + (way === "up" ? 4 : 0);
}

/** Number of values in a packed update that carries them as f64 (`update/format.ts`); 0 for anything else. */
function entriesIn(bytes: Uint8Array): number {
  const isUpdate = bytes.length >= HEADER_BYTES && String.fromCharCode(...bytes.subarray(0, 4)) === "HdlU";
  return isUpdate && bytes[5] === 64 ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(12, true) : 0;
}

function updateIn(bytes: Bytes): ContributorMessage | null {
  const decoded = bytes.length > CONTROL_BYTES ? decodeContributorMessage(bytes) : null;
  return decoded?.ok === true ? decoded.value : null;
}

export interface Meter {
  note(contributor: number, crossing: Crossing): void;
  /** Sums over all contributors. */
  up(): Traffic;
  down(): Traffic;
}

/** Adds up what crossed; `kindOf` is asked once for each request what its blob is for. */
export function createMeter(kindOf: (contributor: number, blob: Digest) => Exclude<keyof Traffic, "messages">): Meter {
  const sums: Record<Way, { -readonly [K in keyof Traffic]: number }> = {
    up: { ...NO_TRAFFIC },
    down: { ...NO_TRAFFIC },
  };
  const taken = new Map<string, number>();
  const asked = new Map<string, Exclude<keyof Traffic, "messages">>();
  const kindIn = (contributor: number, { way, blob }: Crossing): keyof Traffic => {
    if (blob === null) {
      return "messages";
    }
    const key = `${contributor} ${blob}`;
    const kind = (way === "down" ? asked.get(key) : undefined) ?? kindOf(contributor, blob);
    asked.set(key, kind);
    return kind;
  };
  return {
    note: (contributor, crossing) => {
      const { way, bytes, blob } = crossing;
      const kind = kindIn(contributor, crossing);
      sums[way][kind] += bytes;
      if (blob === null) {
        const key = `${contributor} ${way}`;
        const since = (taken.get(key) ?? 0) + bytes;
        const acknowledgements = Math.floor(since / ACKNOWLEDGE_BYTES);
        taken.set(key, since - acknowledgements * ACKNOWLEDGE_BYTES);
        const back = way === "up" ? "down" : "up";
        sums[back].messages += acknowledgements * (FRAME_HEADER_BYTES + webSocketBytes(FRAME_HEADER_BYTES, back));
      }
    },
    up: () => ({ ...sums.up }),
    down: () => ({ ...sums.down }),
  };
}
