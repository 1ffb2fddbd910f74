/**
 * Text as tokens: one token a byte of its UTF-8 form. Written out here because pure code has no TextEncoder; the results
 * are the WHATWG encoding standard's, replacement characters included. Also the checks that make a file's bytes text.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";

const REPLACEMENT = 0xfffd;

/** UTF-8 of a string; a surrogate without its partner becomes U+FFFD. */
export function encode(text: string): Bytes {
  const bytes = new Uint8Array(text.length * 3);
  let n = 0;
  for (const character of text) {
    const scalar = character.codePointAt(0) as number;
    const point = scalar >= 0xd800 && scalar <= 0xdfff ? REPLACEMENT : scalar;
    if (point < 0x80) {
      bytes[n] = point;
      n += 1;
      continue;
    }
    const trail = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    bytes[n] = ((0xff00 >> (trail + 1)) & 0xff) | (point >> (6 * trail));
    for (let i = 1; i <= trail; i += 1) {
      bytes[n + i] = 0x80 | ((point >> (6 * (trail - i))) & 0x3f);
    }
    n += trail + 1;
  }
  return bytes.slice(0, n);
}

/** The text of some tokens or bytes; what is not UTF-8 becomes U+FFFD. */
export function decode(bytes: ArrayLike<number>): string {
  const decoder = createDecoder();
  return decoder.push(bytes) + decoder.end();
}

/** Decodes a stream whose pieces may end in the middle of a character, for example a model's output token by token. */
export interface Decoder {
  /** The characters completed by these bytes. */
  push(bytes: ArrayLike<number>): string;
  /** U+FFFD if the stream ended inside a character, else nothing. */
  end(): string;
}

export function createDecoder(): Decoder {
  let point = 0;
  let needed = 0;
  let lower = 0x80;
  let upper = 0xbf;
  const push = (bytes: ArrayLike<number>): string => {
    const parts: string[] = [];
    let points: number[] = [];
    for (let i = 0; i < bytes.length; i += 1) {
      const byte = bytes[i] as number;
      if (needed > 0 && byte >= lower && byte <= upper) {
        point = (point << 6) | (byte & 0x3f);
        needed -= 1;
        [lower, upper] = [0x80, 0xbf];
        if (needed === 0) {
          points.push(point);
        }
        continue;
      }
      if (needed > 0) {
        points.push(REPLACEMENT);
      }
      const lead = leadOf(byte);
      [needed, lower, upper, point] = [lead.needed, lead.lower, lead.upper, lead.bits];
      if (needed === 0) {
        points.push(byte < 0x80 ? byte : REPLACEMENT);
      }
      if (points.length >= 4096) {
        parts.push(String.fromCodePoint(...points));
        points = [];
      }
    }
    return parts.join("") + String.fromCodePoint(...points);
  };
  const end = (): string => {
    const text = needed > 0 ? "\ufffd" : "";
    needed = 0;
    return text;
  };
  return { push, end };
}

/** What must follow a first byte: how many bytes, the range of the next one, and the character's bits so far. */
function leadOf(byte: number): { needed: number; lower: number; upper: number; bits: number } {
  if (byte >= 0xc2 && byte <= 0xdf) {
    return { needed: 1, lower: 0x80, upper: 0xbf, bits: byte & 0x1f };
  }
  if (byte >= 0xe0 && byte <= 0xef) {
    return { needed: 2, lower: byte === 0xe0 ? 0xa0 : 0x80, upper: byte === 0xed ? 0x9f : 0xbf, bits: byte & 0xf };
  }
  if (byte >= 0xf0 && byte <= 0xf4) {
    return { needed: 3, lower: byte === 0xf0 ? 0x90 : 0x80, upper: byte === 0xf4 ? 0x8f : 0xbf, bits: byte & 7 };
  }
  return { needed: 0, lower: 0x80, upper: 0xbf, bits: 0 };
}

/**
 * A file's bytes as text to train on: a byte-order mark at the start is dropped and CRLF becomes LF, so that the same text
 * has the same digest wherever it was saved. Throws HeddleError "bad-input" when the bytes are not UTF-8 or contain a zero
 * byte; `what` names them in the message.
 */
export function normaliseText(bytes: Uint8Array, what: string): Bytes {
  const fault = firstFault(bytes);
  if (fault !== -1) {
    const problem = bytes[fault] === 0 ? "is zero, so it is not text" : "is not UTF-8; please save it as UTF-8 text";
    throw new HeddleError("bad-input", `Cannot use ${what}: byte ${fault} ${problem}`);
  }
  const start = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  const text = new Uint8Array(bytes.length - start);
  let n = 0;
  for (let i = start; i < bytes.length; i += 1) {
    if (bytes[i] !== 0x0d || bytes[i + 1] !== 0x0a) {
      text[n] = bytes[i] as number;
      n += 1;
    }
  }
  return n === text.length ? text : text.slice(0, n);
}

/** Offset of the first byte that is zero or not part of a UTF-8 character; −1 when there is none. */
function firstFault(bytes: Uint8Array): number {
  let i = 0;
  while (i < bytes.length) {
    const byte = bytes[i] as number;
    if (byte < 0x80) {
      if (byte === 0) {
        return i;
      }
      i += 1;
      continue;
    }
    const { needed, lower, upper } = leadOf(byte);
    const next = bytes[i + 1] ?? 0;
    if (needed === 0 || next < lower || next > upper) {
      return i;
    }
    for (let k = 2; k <= needed; k += 1) {
      if (!isContinuation(bytes[i + k] ?? 0)) {
        return i;
      }
    }
    i += needed + 1;
  }
  return -1;
}

/** Whether a byte continues a UTF-8 character rather than beginning one. */
export function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}
