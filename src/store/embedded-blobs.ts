/**
 * The embedded store's blobs: small ones as rows of its database (`blob-rows.ts`), larger ones as files (`blob-files.ts`). Stores from
 * before there were rows have small files, too: what is read or deleted is looked for in both places.
 */
import type { Bytes, Digest } from "../base/bytes.ts";
import type { FileBlobs } from "./blob-files.ts";
import { hashBytes } from "./hash.ts";
import { checkBlob, checkDigest, deleteBlobs, type Blobs } from "./store.ts";

/** What has more bytes is a file. */
export const ROW_BYTES_MAX = 65_536;

export interface EmbeddedBlobs extends Blobs {
  /** Puts off deletions until the returned function is called, so that what is listed now can be read until then. */
  hold(): () => Promise<void>;
}

export function embeddedBlobs(rows: Blobs, files: FileBlobs, blobBytesMax: number): EmbeddedBlobs {
  let holds = 0;
  const deferred = new Set<Digest>();
  const remove = async (digest: Digest): Promise<void> => {
    await Promise.all([rows.delete(digest), files.has(digest) ? files.delete(digest) : null]);
  };
  return {
    put: async (bytes: Bytes, known) => {
      checkBlob(bytes, blobBytesMax);
      const digest = known ?? (await hashBytes(bytes));
      deferred.delete(digest); // wanted again, and not to be deleted behind this write
      return (bytes.length > ROW_BYTES_MAX ? files : rows).put(bytes, digest);
    },
    get: async (digest) => (await rows.get(digest)) ?? files.get(digest),
    slice: async (digest, start, end) => (await rows.slice(digest, start, end)) ?? files.slice(digest, start, end),
    size: async (digest) => (await rows.size(digest)) ?? files.size(digest),
    delete: async (digest) => {
      checkDigest(digest);
      if (holds > 0) {
        deferred.add(digest);
      } else {
        await remove(digest);
      }
    },
    list: async () => {
      const [small, large] = await Promise.all([rows.list(), files.list()]);
      return [...new Set([...small, ...large])].sort();
    },
    hold: () => {
      holds += 1;
      return async () => {
        holds -= 1;
        const removeUnlessWanted = async (digest: Digest): Promise<void> => {
          if (deferred.delete(digest)) {
            await remove(digest);
          }
        };
        await deleteBlobs({ delete: removeUnlessWanted }, holds === 0 ? [...deferred] : []);
      };
    },
  };
}
