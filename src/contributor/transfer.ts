/**
 * One checkpoint over one link between two contributors: who asks sends `get`, who serves sends the parts (`protocol/peer.ts`).
 * Neither believes the other. Who asks knows the size beforehand, takes each part once and where it belongs, checks it where the relay says
 * what its digest is, and leaves at once when nothing comes, when it comes too slowly, or when it is something else; who serves sends little more
 * than is taken, and no longer than that. The digest of the whole is for the caller to check.
 */
import { HeddleError, messageIn, type ErrorCode } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { createDeferred } from "../base/deferred.ts";
import type { Attach, Begun, Link } from "../net/link.ts";
import { PEER_BYTES_PER_S_MIN, PEER_MS_MAX, PEER_OPEN_MS, PEER_STALL_MS } from "../protocol/limits.ts";
import { decodePeerMessage, encodePeerMessage } from "../protocol/peer.ts";
import { countPieces, pieceAt, pieceDigest } from "../protocol/pieces.ts";

export interface Fetching {
  readonly attach: Attach;
  /** All bytes; rejects with HeddleError "unreachable" when they do not come, "integrity" when a part is wrong. Nobody has to look. */
  readonly done: Promise<Bytes>;
  /** What has come up to the first part that has not, where the parts were checked. */
  begun(): Begun | null;
  /** Ends it, also before there is a link. */
  cancel(reason: string): void;
}

export interface FetchOptions {
  readonly blob: Digest;
  /** Its size, as the relay names it. */
  readonly bytes: number;
  /** SHA-256 of each part, as the relay says; null where it does not. */
  readonly digests: Bytes | null;
  readonly hash: (bytes: Bytes) => Promise<Digest>;
  readonly clock: Clock;
}

/** Asks for `blob` over the link that is attached. */
export function fetchOver({ blob, bytes, digests, hash, clock }: FetchOptions): Fetching {
  const count = countPieces(bytes);
  const { promise: done, resolve, reject } = createDeferred<Bytes>();
  let link: Link | undefined;
  let into: Bytes | undefined;
  let over = false;
  const had = new Set<number>();
  /** Of those, the ones that are as they should be. */
  const sound = new Set<number>();
  const stall = createTimer(clock, () => end(`nothing came for ${PEER_STALL_MS / 1_000} s`));
  const late = createTimer(clock, () => end("it came too slowly"));
  const close = (reason: string): void => {
    over = true;
    stall.clear();
    late.clear();
    link?.close(reason);
  };
  const end = (sentence: string, code: ErrorCode = "unreachable"): void => {
    if (!over) {
      close(`Leaves: ${sentence}`);
    }
    reject(new HeddleError(code, sentence));
  };
  const check = async (index: number, part: Bytes): Promise<void> => {
    if (digests !== null && (await hash(part)) !== pieceDigest(digests, index)) {
      end("another volunteer sent bytes with another digest", "integrity");
      return;
    }
    sound.add(index);
    if (sound.size === count && into !== undefined) {
      resolve(into);
    }
  };
  const take = (message: Bytes): void => {
    const read = decodePeerMessage(message);
    const part = read.ok && read.value.type === "part" ? read.value : null;
    const { start, end: to } = pieceAt(part?.index ?? 0, { bytes, count });
    if (part === null || part.index >= count || part.bytes.length !== to - start || had.has(part.index)) {
      end("it sent something else than was asked for");
      return;
    }
    into ??= new Uint8Array(bytes);
    into.set(part.bytes, start);
    had.add(part.index);
    stall.set(PEER_STALL_MS);
    if (had.size === count) {
      close("It has all come");
    }
    check(part.index, into.subarray(start, to)).catch((error: unknown) => end(messageIn(error)));
  };
  const attach: Attach = (made) => {
    link = made;
    if (over) {
      made.close("Nobody waits for it any more");
    } else {
      stall.set(PEER_STALL_MS);
      late.set(longestMs(bytes));
      made.send(encodePeerMessage({ type: "get", blob }));
    }
    return {
      message: (message) => (over ? undefined : take(message)),
      closed: (reason) => (over ? undefined : end(`the link ended: ${reason}`)),
    };
  };
  const begun = (): Begun | null => {
    let first = 0;
    while (sound.has(first)) {
      first += 1;
    }
    return into === undefined || digests === null
      ? null
      : { bytes: into, filled: pieceAt(first, { bytes, count }).start };
  };
  return { attach, done, begun, cancel: end };
}

export interface ServeOptions {
  readonly blob: Digest;
  readonly content: Bytes;
  readonly clock: Clock;
  /** So many bytes of it were handed to the link. */
  readonly onSent: (bytes: number) => void;
  /** It is over, in whichever way; called once. */
  readonly onEnd: () => void;
}

export interface Serving {
  readonly attach: Attach;
  /** Ends it, also before there is a link. */
  cancel(reason: string): void;
}

/** Serves `content`, whose digest is `blob`, once to who asks for it over the link that is attached. */
export function serveOver({ blob, content, clock, onSent, onEnd }: ServeOptions): Serving {
  const count = countPieces(content.length);
  let link: Link | undefined;
  let over = false;
  let begun = false;
  const stall = createTimer(clock, () => end("Nothing is taken"));
  const late = createTimer(clock, () => end("It is taken too slowly"));
  stall.set(PEER_OPEN_MS);
  const end = (reason: string): void => {
    if (!over) {
      over = true;
      stall.clear();
      late.clear();
      link?.close(reason);
      onEnd();
    }
  };
  const sendFrom = async (index: number, to: Link): Promise<void> => {
    if (over || index === count) {
      return; // after the last part: until the other end closes the link
    }
    const { start, end: until } = pieceAt(index, { bytes: content.length, count });
    to.send(encodePeerMessage({ type: "part", index, bytes: content.subarray(start, until) }));
    onSent(until - start);
    await to.drained();
    if (!over) {
      stall.set(PEER_STALL_MS);
    }
    await sendFrom(index + 1, to);
  };
  const attach: Attach = (made) => {
    link = made;
    if (over) {
      made.close("It is not served any more");
    } else {
      stall.set(PEER_STALL_MS);
      late.set(longestMs(content.length));
    }
    return {
      message: (message) => {
        const read = decodePeerMessage(message);
        if (over) {
          return;
        }
        if (begun || !read.ok || read.value.type !== "get" || read.value.blob !== blob) {
          end("Something else was asked for");
          return;
        }
        begun = true;
        void sendFrom(0, made);
      },
      taken: () => (over ? undefined : stall.set(PEER_STALL_MS)),
      closed: () => end("The link ended"),
    };
  };
  return { attach, cancel: end };
}

/** How long an open link may take for so many bytes. */
function longestMs(bytes: number): number {
  return Math.min(PEER_STALL_MS + (1_000 * bytes) / PEER_BYTES_PER_S_MIN, PEER_MS_MAX);
}

interface Timer {
  /** Fires after `ms`, in place of what was set before. */
  set(ms: number): void;
  clear(): void;
}

function createTimer(clock: Clock, fire: () => void): Timer {
  let cancel = (): void => undefined;
  return {
    set: (ms) => {
      cancel();
      cancel = clock.after(ms, fire);
    },
    clear: () => cancel(),
  };
}
