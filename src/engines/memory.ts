/**
 * How much memory a GPU engine may take, by what a browser says of its machine. Where GPU and processor share their memory a
 * buffer is hardly ever refused: the tab is ended later, without a word. A limit below that lets a trainer compute its
 * activations again instead of keeping them, or give way to the processor with a sentence.
 */

const GiB = 2 ** 30;

/** Half of what iOS lets a tab have (about 1.5 GB): page, WASM and the driver want the rest. */
const PHONE_BYTES_MAX = 0.75 * GiB;
/** The share of all memory that is taken where it is known. */
const SHARE = 1 / 4;
/** Chromium says no more than this on phones, and for long said no more elsewhere: GiB. */
const TOLD_MAX = 8;

/** A part of `navigator`, which workers have as well. */
export interface Machine {
  readonly userAgent: string;
  /** GiB, a power of two; only Chromium tells it. */
  readonly deviceMemory?: number;
}

/** Bytes for `memoryBytesMax` of a GPU engine; Infinity on what seems to be a desktop with memory enough, whose driver refuses. */
export function gpuMemoryLimit({ userAgent, deviceMemory }: Machine): number {
  const isPhone = /Android|iPhone|iPad|iPod/.test(userAgent);
  if (deviceMemory !== undefined && (isPhone || deviceMemory < TOLD_MAX)) {
    return SHARE * deviceMemory * GiB;
  }
  return isPhone ? PHONE_BYTES_MAX : Infinity;
}
