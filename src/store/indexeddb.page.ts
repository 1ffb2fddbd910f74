/** The page of `indexeddb.test.ts`: runs one case of the store contract on IndexedDB. */
import { set, createStore } from "idb-keyval";
import { CONTRACT_BLOB_BYTES_MAX, STORE_CASES } from "./contract.ts";
import { openIndexedDbStore } from "./indexeddb.ts";

declare global {
  var runStoreCase: (name: string) => Promise<void>;
}

globalThis.runStoreCase = async (name) => {
  await STORE_CASES.find((one) => one.name === name)?.run({
    open: () => openIndexedDbStore(name, { blobBytesMax: CONTRACT_BLOB_BYTES_MAX }),
    damage: (digest) => set(digest, new Blob([new Uint8Array(5_000)]), createStore(`${name}-blobs`, "blobs")),
  });
};
