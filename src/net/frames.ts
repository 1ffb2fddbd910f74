/**
 * Frames: what crosses a lane, each at most FRAME_BYTES_MAX. A header of 16 bytes, little-endian, then the payload:
 *
 *   0  u8   version, 1
 *   1  u8   kind: 1 data, 2 acknowledgement, 3 close
 *   2  u16  flags, 0
 *   4  u32  transfer: which message this is a piece of (data); 0 otherwise
 *   8  u32  total: bytes of the whole message (data), bytes of data frames taken since the last acknowledgement; 0 for close
 *   12 u32  offset of this piece in the message (data); 0 otherwise
 *
 * The pieces of one message arrive in order, pieces of other messages may lie between them. This file cuts and assembles; the
 * sending window is kept in `framed-link.ts`. What arrives is not trusted: limits are checked before memory is taken, and memory
 * grows with what has arrived, not with what is announced.
 */
import type { Bytes } from "../base/bytes.ts";
import { FRAME_BYTES_MAX, TRANSFERS_MAX } from "../protocol/limits.ts";
import { FRAME_HEADER_BYTES, SMALL_BYTES_MAX } from "./link.ts";

export const FRAME_VERSION = 1;
export const REASON_BYTES_MAX = 500;

const KIND_DATA = 1;
const KIND_ACK = 2;
const KIND_CLOSE = 3;
/** Memory taken when more arrives than there is room for, as a multiple of what has arrived: a piece of a contribution needs one beside its first frame. */
const GROWTH = 4;

export type Frame =
  | {
      readonly type: "data";
      readonly transfer: number;
      readonly total: number;
      readonly offset: number;
      readonly payload: Uint8Array;
    }
  | { readonly type: "ack"; readonly bytes: number }
  | { readonly type: "close"; readonly reason: string }
  | { readonly type: "malformed"; readonly sentence: string };

/**
 * The piece of a message that starts at `offset`, as a frame: 16 + 0 … SMALL_BYTES_MAX bytes. It lies in `memory` of FRAME_BYTES_MAX bytes
 * where that is given, and is good until the next one is made there.
 */
export function dataFrame(transfer: number, message: Uint8Array, offset: number, memory?: Bytes): Bytes {
  const payload = message.subarray(offset, offset + SMALL_BYTES_MAX);
  const frame = header(KIND_DATA, payload.length, { transfer, total: message.length, offset }, memory);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/** Tells the sender that `bytes` more of its data frames, headers included, have been taken. */
export function ackFrame(bytes: number): Bytes {
  return header(KIND_ACK, 0, { transfer: 0, total: bytes, offset: 0 });
}

/** The last frame of a link: why it ends, cut to REASON_BYTES_MAX. */
export function closeFrame(reason: string): Bytes {
  const text = new TextEncoder().encode(reason).subarray(0, REASON_BYTES_MAX);
  const frame = header(KIND_CLOSE, text.length, { transfer: 0, total: 0, offset: 0 });
  frame.set(text, FRAME_HEADER_BYTES);
  return frame;
}

function header(
  kind: number,
  payloadBytes: number,
  fields: { readonly transfer: number; readonly total: number; readonly offset: number },
  memory?: Bytes,
): Bytes {
  const bytes = FRAME_HEADER_BYTES + payloadBytes;
  const frame = memory?.subarray(0, bytes) ?? new Uint8Array(bytes);
  const view = new DataView(frame.buffer, frame.byteOffset);
  view.setUint8(0, FRAME_VERSION);
  view.setUint8(1, kind);
  view.setUint16(2, 0, true);
  view.setUint32(4, fields.transfer, true);
  view.setUint32(8, fields.total, true);
  view.setUint32(12, fields.offset, true);
  return frame;
}

/** Reads one frame. The payload is a view of `bytes`. Never throws. */
export function readFrame(bytes: Uint8Array): Frame {
  if (bytes.length < FRAME_HEADER_BYTES || bytes.length > FRAME_BYTES_MAX) {
    return malformed(`got ${bytes.length} bytes, need ${FRAME_HEADER_BYTES} to ${FRAME_BYTES_MAX}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint8(0) !== FRAME_VERSION || view.getUint16(2, true) !== 0) {
    return malformed(`got version ${view.getUint8(0)}, flags ${view.getUint16(2, true)}, need ${FRAME_VERSION} and 0`);
  }
  const transfer = view.getUint32(4, true);
  const total = view.getUint32(8, true);
  const offset = view.getUint32(12, true);
  const payload = bytes.subarray(FRAME_HEADER_BYTES);
  const kind = view.getUint8(1);
  if (kind === KIND_DATA) {
    return { type: "data", transfer, total, offset, payload };
  }
  if (transfer !== 0 || offset !== 0) {
    return malformed("a frame without data has a transfer or an offset");
  }
  if (kind === KIND_ACK && payload.length === 0) {
    return { type: "ack", bytes: total };
  }
  if (kind === KIND_CLOSE && total === 0 && payload.length <= REASON_BYTES_MAX) {
    return { type: "close", reason: readReason(payload) };
  }
  return malformed(`got kind ${kind} with ${payload.length} bytes`);
}

function malformed(detail: string): Frame {
  return { type: "malformed", sentence: `Cannot read a frame: ${detail}` };
}

/** The peer's words are shown to people: no control characters, and none that turn the direction of what follows or hide. */
function readReason(payload: Uint8Array): string {
  return (
    new TextDecoder()
      .decode(payload)
      .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, " ")
      .trim() || "The other end closed the link"
  );
}

/** What became of a piece: the message it completes, nothing yet, or why the link must end. */
export type Assembled =
  | { readonly type: "message"; readonly bytes: Bytes }
  | { readonly type: "partial" }
  | { readonly type: "malformed"; readonly sentence: string };

interface Transfer {
  readonly total: number;
  /** The first frame's payload itself, and then memory of our own. */
  buffer: Uint8Array;
  arrived: number;
}

export interface Assembler {
  push(frame: Extract<Frame, { type: "data" }>): Assembled;
  /** Memory held for unfinished messages. */
  heldBytes(): number;
}

/** Puts messages of at most `messageBytesMax` together, `transfersMax` at a time. */
export function createAssembler({
  messageBytesMax,
  transfersMax = TRANSFERS_MAX,
}: {
  readonly messageBytesMax: number;
  readonly transfersMax?: number;
}): Assembler {
  const open = new Map<number, Transfer>();

  const begin = (id: number, total: number, payload: Uint8Array): Assembled => {
    if (total > messageBytesMax) {
      return unfit(`a message of ${total} bytes was announced, this link carries at most ${messageBytesMax}`);
    }
    if (payload.length === total) {
      // Not slice(): a Node Buffer would give a view of shared memory.
      return { type: "message", bytes: new Uint8Array(payload) };
    }
    if (open.size >= transfersMax) {
      return unfit(`more than ${transfersMax} messages are unfinished at a time`);
    }
    // What is short may be a view of much that would be held with it.
    const buffer = payload.length < FRAME_BYTES_MAX / 2 ? new Uint8Array(payload) : payload;
    open.set(id, { total, buffer, arrived: payload.length });
    return { type: "partial" };
  };

  const extend = (id: number, transfer: Transfer, payload: Uint8Array): Assembled => {
    const arrived = transfer.arrived + payload.length;
    if (arrived > transfer.buffer.length) {
      const larger = new Uint8Array(Math.min(transfer.total, GROWTH * arrived));
      larger.set(transfer.buffer.subarray(0, transfer.arrived));
      transfer.buffer = larger;
    }
    transfer.buffer.set(payload, transfer.arrived);
    transfer.arrived = arrived;
    if (arrived < transfer.total) {
      return { type: "partial" };
    }
    open.delete(id);
    return { type: "message", bytes: transfer.buffer as Bytes }; // taken here, and as long as the message
  };

  return {
    push: ({ transfer: id, total, offset, payload }) => {
      const transfer = open.get(id);
      if (offset !== (transfer?.arrived ?? 0) || total !== (transfer?.total ?? total)) {
        return unfit(`a piece of message ${id} does not continue it`);
      }
      if (offset + payload.length > total) {
        return unfit(`a piece of message ${id} goes beyond its end`);
      }
      if (payload.length === 0 && total > 0) {
        return unfit(`a piece of message ${id} is empty`);
      }
      return transfer === undefined ? begin(id, total, payload) : extend(id, transfer, payload);
    },
    heldBytes: () => [...open.values()].reduce((sum, { buffer }) => sum + buffer.length, 0),
  };
}

function unfit(detail: string): Assembled {
  return { type: "malformed", sentence: `Cannot take a frame: ${detail}` };
}
