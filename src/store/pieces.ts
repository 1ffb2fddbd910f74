/**
 * Bytes of any length as pieces, one JetStream message each, under subjects that name them: `<kind>.<name>.<i>`, and
 * `<kind>.<name>.size` written last, which carries the bytes themselves where they are few: most blobs are updates of some kB, and each
 * question costs a relay more than they do. Unlike NATS's object store, a slice is read by asking for just the pieces it touches.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import { dropOldest } from "../base/newest.ts";
import type { JetStream } from "./jetstream.ts";

/** Of the message that is written last: JSON of a `Size`. */
const SIZE_HEADER = "Heddle-Size";
/** What that message carries at most: who asks for a size gets it, in base64. */
const INLINE_BYTES_MAX = 16_384;
/** What the relay's HTTP face reads at a time. */
const PIECE_BYTES_MAX = 262_144;
/** Pieces under way at a time. */
const WINDOW = 8;
/** Names whose size is remembered. */
const KNOWN_MAX = 256;

interface Size {
  readonly bytes: number;
  /** 0: they lie in the message that says so. */
  readonly pieceBytes: number;
}

interface Head {
  readonly size: Size;
  readonly payload: Bytes;
}

interface Range {
  readonly start?: number;
  readonly end?: number;
  readonly from?: "any" | "leader";
}

export interface PiecesOptions {
  readonly jetStream: JetStream;
  readonly stream: string;
  /** Subjects begin with it: two tokens. */
  readonly kind: string;
  /** More than this is refused before memory is allocated for it. */
  readonly bytesMax: number;
}

export class Pieces {
  readonly #options: PiecesOptions;
  /** Sizes of what is in pieces as they were read last, so that who reads slice by slice does not ask for it each time. */
  readonly #known = new Map<string, Size>();

  constructor(options: PiecesOptions) {
    this.#options = options;
  }

  async put(action: string, name: string, bytes: Bytes): Promise<void> {
    const { jetStream } = this.#options;
    const pieceBytesMax = Math.min(PIECE_BYTES_MAX, jetStream.payloadBytesMax);
    const isInline = bytes.length <= Math.min(INLINE_BYTES_MAX, pieceBytesMax);
    const size: Size = { bytes: bytes.length, pieceBytes: isInline ? 0 : pieceBytesMax };
    await inWindow(countOf(size), async (i) => {
      const payload = bytes.subarray(i * pieceBytesMax, (i + 1) * pieceBytesMax);
      await jetStream.write(action, { subject: this.#subject(name, i), payload });
    });
    await jetStream.write(action, {
      subject: this.#subject(name, "size"),
      payload: isInline ? bytes : new Uint8Array(),
      headers: { [SIZE_HEADER]: JSON.stringify(size) },
    });
  }

  async size(action: string, name: string): Promise<number | undefined> {
    return (await this.#head(action, name))?.size.bytes;
  }

  /**
   * Bytes start … end (exclusive), or to the end of what is there; undefined when absent. `from` "leader" does not take what
   * another replica has. Rejects with HeddleError "integrity" when a piece is missing or has another length.
   */
  async read(action: string, name: string, range: Range = {}): Promise<Bytes | undefined> {
    const size = this.#known.get(name);
    const remembered = size === undefined ? undefined : await this.#readAs(action, name, size, range);
    if (remembered instanceof Uint8Array && remembered.length > 0) {
      return remembered;
    } // else it was deleted, and may have been put again in other pieces
    const head = await this.#head(action, name);
    const read = head && (await this.#readHeaded(action, name, head, range));
    if (typeof read !== "string") {
      return read;
    }
    if ((await this.#head(action, name)) === undefined) {
      return undefined; // deleted meanwhile
    }
    throw new HeddleError("integrity", `Cannot ${action}: ${read}`);
  }

  /** A sentence where bytes are missing, or are others. */
  async #readHeaded(action: string, name: string, { size, payload }: Head, range: Range): Promise<Bytes | string> {
    if (size.pieceBytes > 0) {
      return this.#readAs(action, name, size, range);
    }
    const { start = 0, end = Infinity } = range;
    return payload.length === size.bytes
      ? payload.slice(Math.min(start, end), end)
      : `got ${payload.length} bytes with "${this.#subject(name, "size")}", need ${size.bytes} bytes`;
  }

  /** A sentence where a piece is missing or has another length. */
  async #readAs(
    action: string,
    name: string,
    size: Size,
    { start = 0, end = Infinity, from = "any" }: Range,
  ): Promise<Bytes | string> {
    const { jetStream, stream } = this.#options;
    const stop = Math.min(end, size.bytes);
    const read = new Uint8Array(Math.max(0, stop - start));
    const first = Math.floor(start / size.pieceBytes);
    let fault: string | null = null;
    await inWindow(read.length === 0 ? 0 : Math.ceil(stop / size.pieceBytes) - first, async (i) => {
      const at = (first + i) * size.pieceBytes;
      const subject = this.#subject(name, first + i);
      const piece =
        from === "any"
          ? await jetStream.fixed(action, stream, { last_by_subj: subject })
          : await jetStream.last(action, stream, subject);
      const expected = Math.min(size.pieceBytes, size.bytes - at);
      if (piece?.payload.length !== expected) {
        const got = piece === undefined ? "nothing" : `${piece.payload.length} bytes`;
        fault ??= `got ${got} of "${subject}", need ${expected} bytes`;
        return;
      }
      read.set(piece.payload.subarray(Math.max(0, start - at), stop - at), Math.max(0, at - start));
    });
    return fault ?? read;
  }

  async delete(action: string, name: string): Promise<void> {
    await this.#options.jetStream.remove(action, this.#options.stream, this.#subject(name, "*"));
  }

  /** Names of what is whole. */
  async list(action: string): Promise<string[]> {
    const { jetStream, stream, kind } = this.#options;
    const subjects = await jetStream.subjects(action, stream, this.#subject("*", "size"));
    return subjects.map((subject) => subject.slice(kind.length + 1, -".size".length)).sort();
  }

  /**
   * Removes what is not whole, and what `isNeeded` says no to, where nothing was added to it for `ageMs`: it is of a write that was cut
   * off. What is written anew meanwhile stays. Resolves to how many were removed.
   */
  async sweep(action: string, ageMs: number, isNeeded: (name: string) => boolean): Promise<number> {
    const { jetStream, stream, kind } = this.#options;
    const parts = (await jetStream.subjects(action, stream, this.#subject("*", "*"))).map((subject) =>
      subject.slice(kind.length + 1).split("."),
    );
    const whole = new Set(parts.filter(([, part]) => part === "size").map(([name]) => name));
    const names = [...new Set(parts.map(([name = ""]) => name))];
    const left = names.filter((name) => !whole.has(name) || !isNeeded(name));
    let removed = 0;
    await inWindow(left.length, async (i) => {
      const name = left[i] as string;
      const subject = this.#subject(name, "*");
      const last = await jetStream.last(action, stream, subject);
      // A listing of many pages may have missed it.
      if (isNeeded(name) && (await jetStream.last(action, stream, this.#subject(name, "size"))) !== undefined) {
        return;
      }
      if (last !== undefined && Date.now() - last.timeMs >= ageMs) {
        await jetStream.remove(action, stream, subject, last.sequence);
        removed += 1;
      }
    });
    return removed;
  }

  /** As the stream's leader has it: other replicas may still have what was deleted. */
  async #head(action: string, name: string): Promise<Head | undefined> {
    const { jetStream, stream, bytesMax } = this.#options;
    const subject = this.#subject(name, "size");
    const stored = await jetStream.last(action, stream, subject);
    this.#known.delete(name);
    if (stored === undefined) {
      return undefined;
    }
    const said = stored.header(SIZE_HEADER);
    let size: Partial<Size> | null;
    try {
      size = JSON.parse(said) as Partial<Size> | null;
    } catch {
      size = null;
    }
    const { bytes, pieceBytes } = size ?? {};
    if (!isCount(bytes, bytesMax) || !isCount(pieceBytes, PIECE_BYTES_MAX)) {
      const hint = said === "" ? "; a version before 1 December 2026 wrote it, which can back it up" : "";
      const sentence = `Cannot ${action}: "${subject}" says no size of at most ${bytesMax} bytes${hint}`;
      throw new HeddleError("integrity", sentence);
    }
    if (pieceBytes > 0) {
      this.#known.set(name, { bytes, pieceBytes });
      dropOldest(this.#known, KNOWN_MAX);
    }
    return { size: { bytes, pieceBytes }, payload: stored.payload };
  }

  #subject(name: string, part: number | "size" | "*"): string {
    return `${this.#options.kind}.${name}.${part}`;
  }
}

/** Messages beside the one that says the size. */
function countOf({ bytes, pieceBytes }: Size): number {
  return pieceBytes === 0 ? 0 : Math.ceil(bytes / pieceBytes);
}

/** Runs `work` for 0 … count − 1, at most WINDOW at a time; begins nothing more once one has failed. */
export async function inWindow(count: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await work(next - 1).catch((error: unknown) => {
        next = count;
        throw error;
      });
    }
  };
  await Promise.all(Array.from({ length: Math.min(WINDOW, count) }, lane));
}

function isCount(value: unknown, max: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max;
}
