/**
 * What a device remembers of a run from one start to the next: the base it held, the residual, the inner optimiser's moments,
 * and the contribution that has no verdict yet. Large arrays are blobs; one key names them, so that a restart finds either the page
 * before a contribution or the page after it, never half of each. Texts are not written here, private or not.
 */
import { encode } from "@msgpack/msgpack";
import { bytesToFloats, digestOf, floatBytes, type Bytes, type ContributionId, type Digest } from "../base/bytes.ts";
import {
  binary,
  checked,
  decodeValue,
  digest,
  integer,
  list,
  measured,
  nullable,
  oneOf,
  record,
  type Reader,
} from "../protocol/fields.ts";
import {
  CONTRIBUTION_BYTES_MAX,
  COUNT_MAX,
  HEADER_BYTES_MAX,
  PIECES_MAX,
  SIGNATURE_BYTES_MAX,
  STEPS_MAX,
} from "../protocol/limits.ts";
import type { ScanLimits } from "../protocol/scan.ts";
import { deleteBlobs, type Store } from "../store/store.ts";
import type { Pending } from "./state.ts";
import type { Moments } from "../model/trainer.ts";

/** A contribution as it was signed. */
export interface Signed {
  readonly pending: Pending;
  readonly header: Bytes;
  readonly signature: Bytes;
  readonly payload: Bytes;
}

/** A version of the shared base. */
export interface Held {
  /** Of the parameters' bytes. */
  readonly digest: Digest;
  readonly params: Float32Array<ArrayBuffer>;
}

export interface Page {
  /** The version held last; null before the first. */
  readonly base: Held | null;
  /** [P], f64 where values travel exactly; null before the first contribution. */
  readonly residual: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | null;
  /** Round of the last delta in the residual. */
  readonly round: number;
  /** Contributions made. */
  readonly made: number;
  readonly moments: Moments | null;
  /** The last contribution, until its verdict is here: what it sent is in the residual still. */
  readonly signed: Signed | null;
  /** The one before it, where the last one was made before its verdict was here: what it sent has left the residual. */
  readonly late: Signed | null;
}

export const EMPTY_PAGE: Page = {
  base: null,
  residual: null,
  round: 0,
  made: 0,
  moments: null,
  signed: null,
  late: null,
};

export interface Notebook {
  /** The last page that was written; an empty one where there is none or it cannot be read any more. */
  read(): Promise<Page>;
  /** Durable when resolved. Calls must not overlap, and the page's arrays must not change. */
  write(page: Page): Promise<void>;
  /** Blobs that are its own. */
  names(): ReadonlySet<Digest>;
}

/** What the key holds. */
interface Written {
  readonly base: Digest | null;
  readonly residual: { readonly digest: Digest; readonly bits: 32 | 64 } | null;
  readonly round: number;
  readonly made: number;
  readonly moments: { readonly m: Digest; readonly v: Digest; readonly t: number } | null;
  readonly signed: WrittenContribution | null;
  readonly late: WrittenContribution | null;
}

type WrittenContribution = Omit<Signed, "payload"> & { readonly payload: Digest };

const SCAN: ScanLimits = { depthMax: 4, valuesMax: 96, stringBytesMax: 64, binBytesMax: HEADER_BYTES_MAX };
const count = integer(0, COUNT_MAX);

const contributionReader: Reader<WrittenContribution> = record<WrittenContribution>({
  pending: record<Pending>({
    id: digest<ContributionId>(),
    round: count,
    baseVersion: count,
    wireBytes: integer(0, CONTRIBUTION_BYTES_MAX),
    pieces: integer(1, PIECES_MAX),
    steps: integer(1, STEPS_MAX),
    loss: measured,
  }),
  header: binary(1, HEADER_BYTES_MAX),
  signature: binary(1, SIGNATURE_BYTES_MAX),
  payload: digest<Digest>(),
});

const writtenReader: Reader<Written> = record<Written>({
  residual: nullable(
    record<NonNullable<Written["residual"]>>({ digest: digest<Digest>(), bits: oneOf([32, 64] as const) }),
  ),
  round: count,
  made: count,
  moments: nullable(record<NonNullable<Written["moments"]>>({ m: digest<Digest>(), v: digest<Digest>(), t: count })),
  signed: nullable(contributionReader),
  late: nullable(contributionReader),
  base: nullable(digest<Digest>()),
});

/** Names that one list of what may be stored holds: a page has six, and what could not be deleted is named, too. */
const STORED_MAX = 64;
const storedReader = list(digest<Digest>(), 0, STORED_MAX);

/** `hash`: SHA-256, off the main path where that matters. */
export function openNotebook(
  store: Store,
  run: Digest,
  hash: (bytes: Bytes) => Promise<Digest> = async (bytes) => digestOf(bytes),
): Notebook {
  const key = notebookKey(run);
  /** Names what may be stored for this notebook, so that what a process leaves that dies while it writes is deleted by the next one. */
  const storedKey = `${key}/stored`;
  /** What the page that is written names. */
  let kept: ReadonlySet<Digest> = new Set();
  let stored: ReadonlySet<Digest> = new Set();
  /** What arrays that were written before are stored as: a page shares most of them with the one before. */
  const names = new WeakMap<object, Digest>();
  const nameOf = async (values: Values, known?: Digest): Promise<Digest> => {
    const name = names.get(values) ?? known ?? (await hash(bytesOf(values)));
    names.set(values, name);
    return name;
  };
  const keepOnly = async (wanted: ReadonlySet<Digest>): Promise<void> => {
    await deleteBlobs(
      store.blobs,
      [...stored].filter((name) => !wanted.has(name)),
    );
    stored = wanted;
  };
  return {
    read: async () => {
      const [bytes, storedBytes] = [await store.keys.get(key), await store.keys.get(storedKey)];
      const written = bytes === undefined ? null : valueIn(writtenReader, bytes);
      kept = written === null ? new Set() : namesIn(written);
      stored = new Set([...kept, ...((storedBytes === undefined ? null : valueIn(storedReader, storedBytes)) ?? [])]);
      await keepOnly(kept).catch(() => undefined); // the next page that is written tries again
      return written === null ? EMPTY_PAGE : readPage(store, written);
    },
    write: async (page) => {
      const parts = new Map<Digest, Values>();
      const written = await named(page, async (values, known) => {
        const name = await nameOf(values, known);
        parts.set(name, values);
        return name;
      });
      const fresh = [...parts].filter(([name]) => !kept.has(name));
      stored = new Set([...stored, ...parts.keys()]);
      if (fresh.length > 0) {
        await store.keys.set(storedKey, new Uint8Array(encode([...stored].slice(-STORED_MAX))));
      }
      const { base } = written;
      let hasBase = true;
      for (const [name, values] of fresh) {
        try {
          await store.blobs.put(bytesOf(values), name);
        } catch (error) {
          if (name !== base) {
            await keepOnly(kept); // no page will name them
            throw error;
          }
          hasBase = false; // only where there is room: it can be fetched again
        }
      }
      const next = hasBase ? written : { ...written, base: null };
      await store.keys.set(key, new Uint8Array(encode(next)));
      kept = namesIn(next);
      await keepOnly(kept);
    },
    names: () => new Set([...kept, ...stored]),
  };
}

/** Of the key that a run's page is under. */
export function notebookKey(run: Digest): string {
  return `contributor/${run}/notebook`;
}

/** Null for bytes that are damaged. */
function valueIn<T>(reader: Reader<T>, bytes: Bytes): T | null {
  const read = checked(() => reader(decodeValue(bytes, SCAN), "notebook"));
  return read.ok ? read.value : null;
}

function namesIn({ base, residual, moments, signed, late }: Written): Set<Digest> {
  const names = [base ?? undefined, residual?.digest, moments?.m, moments?.v, signed?.payload, late?.payload];
  return new Set(names.filter((name) => name !== undefined));
}

type Values = Bytes | Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

function bytesOf(values: Values): Bytes {
  return values instanceof Uint8Array ? values : floatBytes(values);
}

/** The page with names instead of arrays; the base, which needs room least, last. */
async function named(
  { base, residual, round, made, moments, signed, late }: Page,
  nameOf: (values: Values, known?: Digest) => Promise<Digest>,
): Promise<Written> {
  return {
    residual:
      residual === null ? null : { digest: await nameOf(residual), bits: residual instanceof Float64Array ? 64 : 32 },
    round,
    made,
    moments: moments === null ? null : { m: await nameOf(moments.m), v: await nameOf(moments.v), t: moments.t },
    signed: signed === null ? null : { ...signed, payload: await nameOf(signed.payload) },
    late: late === null ? null : { ...late, payload: await nameOf(late.payload) },
    base: base === null ? null : await nameOf(base.params, base.digest),
  };
}

/** A blob that is missing or damaged costs what it held, not the start. */
async function readPage(store: Store, written: Written): Promise<Page> {
  const get = async (name: Digest): Promise<Bytes | undefined> => {
    try {
      return await store.blobs.get(name);
    } catch {
      return undefined;
    }
  };
  /** Undefined, too, for a blob that is none of numbers of `bytes` bytes each. */
  const numbers = async (name: Digest, bytes: number): Promise<Bytes | undefined> => {
    const found = await get(name);
    return found === undefined || found.length % bytes !== 0 ? undefined : found;
  };
  const contribution = async (one: WrittenContribution | null): Promise<Signed | null> => {
    const payload = one === null ? undefined : await get(one.payload);
    return one === null || payload === undefined ? null : { ...one, payload };
  };
  const { base, residual, moments, signed, late } = written;
  const params = base === null ? undefined : await numbers(base, 4);
  const residualBytes = residual === null ? undefined : await numbers(residual.digest, residual.bits / 8);
  const m = moments === null ? undefined : await numbers(moments.m, 4);
  const v = moments === null ? undefined : await numbers(moments.v, 4);
  return {
    base: base === null || params === undefined ? null : { digest: base, params: bytesToFloats(params) },
    residual:
      residual === null || residualBytes === undefined
        ? null
        : residual.bits === 64
          ? new Float64Array(residualBytes.slice().buffer)
          : bytesToFloats(residualBytes),
    round: written.round,
    made: written.made,
    moments:
      moments === null || m === undefined || v === undefined
        ? null
        : { m: bytesToFloats(m), v: bytesToFloats(v), t: moments.t },
    signed: await contribution(signed),
    late: await contribution(late),
  };
}
