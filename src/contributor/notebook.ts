/**
 * What a device remembers of a run from one start to the next: the residual, the inner optimiser's moments, and the
 * contribution that has no verdict yet. Large arrays are blobs; one key names them, so that a restart finds either the page
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

export interface Page {
  /** [P], f64 where values travel exactly; null before the first contribution. */
  readonly residual: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer> | null;
  /** Round of the last delta in the residual. */
  readonly round: number;
  readonly moments: Moments | null;
  readonly signed: Signed | null;
}

export const EMPTY_PAGE: Page = { residual: null, round: 0, moments: null, signed: null };

export interface Notebook {
  /** The last page that was written; an empty one where there is none or it cannot be read any more. */
  read(): Promise<Page>;
  /** Durable when resolved. Calls must not overlap. */
  write(page: Page): Promise<void>;
}

/** What the key holds. */
interface Written {
  readonly residual: { readonly digest: Digest; readonly bits: 32 | 64 } | null;
  readonly round: number;
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
  let kept = new Set<Digest>();
  return {
    read: async () => {
      const bytes = await store.keys.get(key);
      if (bytes === undefined) {
        return EMPTY_PAGE;
      }
      const written = decode(bytes) as Written;
      kept = namesIn(written);
      return readPage(store, written);
    },
    write: async (page) => {
      const written = await writePage(store, page);
      await store.keys.set(key, new Uint8Array(encode(written)));
      const names = namesIn(written);
      for (const digest of kept) {
        if (!names.has(digest)) {
          await store.blobs.delete(digest);
        }
      }
      kept = names;
    },
  };
}

function namesIn({ residual, moments, signed }: Written): Set<Digest> {
  const names = [residual?.digest, moments?.m, moments?.v, signed?.payload];
  return new Set(names.filter((name) => name !== undefined));
}

async function writePage(store: Store, { residual, round, moments, signed }: Page): Promise<Written> {
  const put = store.blobs.put;
  return {
    residual:
      residual === null
        ? null
        : { digest: await put(floatBytes(residual)), bits: residual instanceof Float64Array ? 64 : 32 },
    round,
    moments:
      moments === null
        ? null
        : { m: await put(floatBytes(moments.m)), v: await put(floatBytes(moments.v)), t: moments.t },
    signed: signed === null ? null : { ...signed, payload: await put(signed.payload) },
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
  const { residual, moments, signed } = written;
  const residualBytes = residual === null ? undefined : await get(residual.digest);
  const m = moments === null ? undefined : await get(moments.m);
  const v = moments === null ? undefined : await get(moments.v);
  const payload = signed === null ? undefined : await get(signed.payload);
  return {
    residual:
      residual === null || residualBytes === undefined
        ? null
        : residual.bits === 64
          ? new Float64Array(residualBytes.slice().buffer)
          : bytesToFloats(residualBytes),
    round: written.round,
    moments:
      moments === null || m === undefined || v === undefined
        ? null
        : { m: bytesToFloats(m), v: bytesToFloats(v), t: moments.t },
    signed: signed === null || payload === undefined ? null : { ...signed, payload },
  };
}
