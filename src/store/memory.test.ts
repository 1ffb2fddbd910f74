import { describe, test } from "vitest";
import { CONTRACT_BLOB_BYTES_MAX, STORE_CASES, type StorePlace } from "./contract.ts";
import { createMemoryDisk, createMemoryStore } from "./memory.ts";

function memoryPlace(): StorePlace {
  const disk = createMemoryDisk();
  return {
    open: async () => createMemoryStore({ disk, blobBytesMax: CONTRACT_BLOB_BYTES_MAX }),
    damage: async (digest) => {
      disk.blobs.get(digest)?.fill(0);
    },
  };
}

describe("createMemoryStore() keeps the contract", () => {
  test.each(STORE_CASES)("$name", ({ run }) => run(memoryPlace()));
});
