/**
 * What crosses the network, to the byte, as it would over a WebSocket and HTTP: payloads and messages as they are, the
 * frames' headers and acknowledgements, WebSocket's own headers, and HTTP's. TCP, TLS and below are left out. Values that
 * travel as f64 for the sake of exact sums are counted as f32, which is what dense DiLoCo, FedAvg and data parallel training
 * send.
 */
import type { Bytes, Digest } from "../src/base/bytes.ts";
import { FRAME_HEADER_BYTES, SMALL_BYTES_MAX } from "../src/net/link.ts";
import { decodeContributorMessage } from "../src/protocol/codec.ts";
import { FRAME_BYTES_MAX } from "../src/protocol/limits.ts";
import type { Crossing, Way } from "../src/sim/network.ts";
import { HEADER_BYTES } from "../src/update/format.ts";

/** Head of a blob's request and of its answer between Node's `fetch` and our relay, read from the socket on 2026-11-28. */
export const REQUEST = { upBytes: 258, downBytes: 542 } as const;
/** A receiver acknowledges after so many bytes of frames (`net/framed-link.ts`). */
const ACKNOWLEDGE_BYTES = 131_072;
/** A contribution is longer. */
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

/** What a message or blob weighs. */
export function weigh(bytes: Bytes, what: "message" | "blob", way: Way): number {
  const spared = 4 * entriesIn(what === "blob" ? bytes : payloadIn(bytes, way));
  return what === "blob" ? bytes.length - spared : framed(bytes.length - spared, way);
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
function entriesIn(bytes: Uint8Array | undefined): number {
  const isUpdate =
    bytes !== undefined && bytes.length >= HEADER_BYTES && String.fromCharCode(...bytes.subarray(0, 4)) === "HdlU";
  return isUpdate && bytes[5] === 64 ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(12, true) : 0;
}

function payloadIn(bytes: Bytes, way: Way): Uint8Array | undefined {
  const decoded = way === "up" && bytes.length > CONTROL_BYTES ? decodeContributorMessage(bytes) : null;
  return decoded?.ok === true && decoded.value.type === "contribute" ? decoded.value.payload : undefined;
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
