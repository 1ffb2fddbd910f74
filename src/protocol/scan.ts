/**
 * A walk over msgpack bytes that allocates nothing: it says whether they are one whole value whose depth, number of values
 * and string lengths keep to the limits, before a decoder is let loose on them. A decoder that allocates an array when it
 * reads the array's length can be made to allocate a thousand times what it was sent; after this walk it cannot, because
 * every length that is announced has been seen to be there. Follows github.com/msgpack/msgpack/blob/master/spec.md.
 */
import { assert } from "../base/assert.ts";

export interface ScanLimits {
  /** Containers within containers; a map of plain values has depth 1. */
  readonly depthMax: number;
  /** Values in all, keys included. */
  readonly valuesMax: number;
  /** Bytes of one string. */
  readonly stringBytesMax: number;
  /** Bytes of one `bin`. */
  readonly binBytesMax: number;
}

/** One msgpack head: how many bytes it takes, the bytes that follow as content, the values that follow as children. */
interface Head {
  readonly size: number;
  readonly content: number;
  readonly children: number;
  readonly kind: "plain" | "string" | "bin" | "container" | "refused";
}

/** Returns null when `bytes` are one value within `limits`, otherwise what is wrong with them, in one sentence. */
export function scanMsgpack(bytes: Uint8Array, limits: ScanLimits): string | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pending: number[] = []; // values still to come, one count for each open container
  let at = 0;
  let values = 0;
  do {
    while (pending.length > 0 && pending[pending.length - 1] === 0) {
      pending.pop();
    }
    if (values > 0 && pending.length === 0) {
      break;
    }
    if (pending.length > 0) {
      pending[pending.length - 1] = (pending[pending.length - 1] as number) - 1;
    }
    const head = readHead(view, at);
    values += 1;
    if (head === null) {
      return `the bytes end inside a value at ${at}`;
    }
    if (head.kind === "refused") {
      return `byte ${at} begins a kind of value that the protocol does not use`;
    }
    if (head.kind === "string" && head.content > limits.stringBytesMax) {
      return `got a string of ${head.content} bytes, need at most ${limits.stringBytesMax}`;
    }
    if (head.kind === "bin" && head.content > limits.binBytesMax) {
      return `got ${head.content} bytes, need at most ${limits.binBytesMax}`;
    }
    at += head.size + head.content;
    if (at + head.children > view.byteLength) {
      return `a value announces more than the ${view.byteLength} bytes there are`;
    }
    if (values + head.children > limits.valuesMax) {
      return `got more than ${limits.valuesMax} values`;
    }
    if (head.kind === "container") {
      pending.push(head.children);
      if (pending.length > limits.depthMax) {
        return `got values nested deeper than ${limits.depthMax}`;
      }
    }
  } while (pending.length > 0);
  assert(at <= view.byteLength, `Cannot scan msgpack: read ${at} of ${view.byteLength} bytes`);
  return at === view.byteLength ? null : `got ${view.byteLength - at} bytes after the end of the value`;
}

const REFUSED: Head = { size: 1, content: 0, children: 0, kind: "refused" };

/** Reads the head at `at`; null when the bytes end inside it. */
function readHead(view: DataView, at: number): Head | null {
  if (at >= view.byteLength) {
    return null;
  }
  const tag = view.getUint8(at);
  if (tag <= 0x7f || tag >= 0xe0 || tag === 0xc0 || tag === 0xc2 || tag === 0xc3) {
    return plain(0);
  }
  if (tag <= 0x8f) {
    return { size: 1, content: 0, children: 2 * (tag & 0x0f), kind: "container" };
  }
  if (tag <= 0x9f) {
    return { size: 1, content: 0, children: tag & 0x0f, kind: "container" };
  }
  if (tag <= 0xbf) {
    return { size: 1, content: tag & 0x1f, children: 0, kind: "string" };
  }
  if (tag === 0xca || tag === 0xcb) {
    return plain(tag === 0xca ? 4 : 8);
  }
  if (tag >= 0xcc && tag <= 0xd3) {
    return plain(1 << ((tag - 0xcc) & 3));
  }
  const lengthBytes = LENGTH_BYTES[tag];
  if (lengthBytes === undefined) {
    return REFUSED; // extensions (timestamps among them) and the byte that msgpack never uses
  }
  if (at + 1 + lengthBytes > view.byteLength) {
    return null;
  }
  const length =
    lengthBytes === 1 ? view.getUint8(at + 1) : lengthBytes === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1);
  const size = 1 + lengthBytes;
  if (tag <= 0xc6) {
    return { size, content: length, children: 0, kind: "bin" };
  }
  if (tag <= 0xdb) {
    return { size, content: length, children: 0, kind: "string" };
  }
  return { size, content: 0, children: tag >= 0xde ? 2 * length : length, kind: "container" };
}

/** Bytes of the length that follows the tag: bin, str, array and map in their 8, 16 and 32 bit forms. */
const LENGTH_BYTES: Readonly<Record<number, 1 | 2 | 4>> = {
  0xc4: 1,
  0xc5: 2,
  0xc6: 4,
  0xd9: 1,
  0xda: 2,
  0xdb: 4,
  0xdc: 2,
  0xdd: 4,
  0xde: 2,
  0xdf: 4,
};

function plain(content: number): Head {
  return { size: 1, content, children: 0, kind: "plain" };
}
