/**
 * What a device remembers of a run from one start to the next: the base it held, the residual, the inner optimiser's moments,
 * and the contribution that has no verdict yet. Large arrays are blobs; one key names them, so that a restart finds either the page
 * before a contribution or the page after it, never half of each. Texts are not written here, private or not.
 */
import { decode, encode } from "@msgpack/msgpack";
import { bytesToFloats, floatBytes, type Bytes, type Digest } from "../base/bytes.ts";
import type { Store } from "../store/store.ts";
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
  readonly signed: Signed | null;
}

export const EMPTY_PAGE: Page = { base: null, residual: null, round: 0, made: 0, moments: null, signed: null };

export interface Notebook {
  /** The last page that was written; an empty one where there is none or it cannot be read any more. */
  read(): Promise<Page>;
  /** Durable when resolved. Calls must not overlap, and the page's arrays must not change. */
  write(page: Page): Promise<void>;
}

/** What the key holds. */
interface Written {
  readonly base: Digest | null;
  readonly residual: { readonly digest: Digest; readonly bits: 32 | 64 } | null;
  readonly round: number;
  readonly made: number;
  readonly moments: { readonly m: Digest; readonly v: Digest; readonly t: number } | null;
  readonly signed: {
    readonly pending: Pending;
    readonly header: Bytes;
    readonly signature: Bytes;
    readonly payload: Digest;
  } | null;
}

export function openNotebook(store: Store, run: Digest): Notebook {
  const key = `contributor/${run}/notebook`;
  let kept: ReadonlySet<Digest> = new Set();
  /** What the write at hand has stored. */
  const fresh = new Set<Digest>();
  /** What arrays that were written before are stored as: a page shares most of them with the one before. */
  const names = new WeakMap<object, Digest>();
  const put: Put = async (values) => {
    const known = names.get(values);
    if (known !== undefined && kept.has(known)) {
      return known;
    }
    const digest = await store.blobs.put(values instanceof Uint8Array ? values : floatBytes(values));
    names.set(values, digest);
    fresh.add(digest);
    return digest;
  };
  const forget = async (digests: ReadonlySet<Digest>, but: ReadonlySet<Digest>): Promise<void> => {
    for (const digest of digests) {
      if (!but.has(digest)) {
        await store.blobs.delete(digest);
      }
    }
  };
  return {
    read: async () => {
      const bytes = await store.keys.get(key);
      if (bytes === undefined) {
        return EMPTY_PAGE;
      }
      const written = writtenIn(bytes);
      if (written === null) {
        return EMPTY_PAGE;
      }
      kept = namesIn(written);
      return readPage(store, written);
    },
    write: async (page) => {
      fresh.clear();
      const written = await writePage(put, page).catch(async (error: unknown) => {
        await forget(fresh, kept); // no page will name them
        throw error;
      });
      await store.keys.set(key, new Uint8Array(encode(written)));
      const named = namesIn(written);
      await forget(kept, named);
      kept = named;
    },
  };
}

/** Null for bytes that are damaged. */
function writtenIn(bytes: Bytes): Written | null {
  try {
    return decode(bytes) as Written;
  } catch {
    return null;
  }
}

function namesIn({ base, residual, moments, signed }: Written): Set<Digest> {
  const names = [base ?? undefined, residual?.digest, moments?.m, moments?.v, signed?.payload];
  return new Set(names.filter((name) => name !== undefined));
}

type Put = (values: Bytes | Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>) => Promise<Digest>;

async function writePage(put: Put, { base, residual, round, made, moments, signed }: Page): Promise<Written> {
  return {
    residual:
      residual === null ? null : { digest: await put(residual), bits: residual instanceof Float64Array ? 64 : 32 },
    round,
    made,
    moments: moments === null ? null : { m: await put(moments.m), v: await put(moments.v), t: moments.t },
    signed: signed === null ? null : { ...signed, payload: await put(signed.payload) },
    // Last, and only where there is room: it can be fetched again.
    base: base === null ? null : await put(base.params).catch(() => null),
  };
}

/** A blob that is missing or damaged costs what it held, not the start. */
async function readPage(store: Store, written: Written): Promise<Page> {
  const get = async (digest: Digest): Promise<Bytes | undefined> => {
    try {
      return await store.blobs.get(digest);
    } catch {
      return undefined;
    }
  };
  const { base, residual, moments, signed } = written;
  const params = base === null ? undefined : await get(base);
  const residualBytes = residual === null ? undefined : await get(residual.digest);
  const m = moments === null ? undefined : await get(moments.m);
  const v = moments === null ? undefined : await get(moments.v);
  const payload = signed === null ? undefined : await get(signed.payload);
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
    signed: signed === null || payload === undefined ? null : { ...signed, payload },
  };
}
