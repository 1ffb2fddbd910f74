import { mkdtempDisposableSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { parseRelayConfig, type RelayConfig } from "./config.ts";
import { openRun } from "./run.ts";

const config = parseRelayConfig([], {}, false) as RelayConfig;

test("openRun() goes on with the charter of a run that began, and replaces one of a run that did not", async () => {
  const disk = createMemoryDisk();
  const store = createMemoryStore({ disk });
  await store.keys.set("charter", Uint8Array.of(1));
  const run = await openRun(store, config);
  expect(run.kept).toBe(false);
  await store.log.append(0, [Uint8Array.of(1)]);
  const again = await openRun(createMemoryStore({ disk }), config);
  expect([again.kept, again.charter]).toEqual([true, run.charter]);
});

test("openRun() says of a run whose charter it cannot read that its own version has to finish it", async () => {
  const store = createMemoryStore();
  await store.keys.set("charter", Uint8Array.of(1));
  await store.log.append(0, [Uint8Array.of(1)]);
  await expect(openRun(store, config)).rejects.toMatchObject({
    code: "bad-input",
    message: expect.stringContaining("of another version of Heddle, which has to finish it"),
  });
});

test.each([
  [{ model: { vocabulary: 2 } }, /got a vocabulary of 2, need at least 256/],
  [{ model: null }, /charter\.model: need a map$/],
])("openRun() says why the charter %j cannot be used, and keeps nothing of it", async (charter, reason) => {
  using folder = mkdtempDisposableSync(join(tmpdir(), "heddle-"));
  const file = join(folder.path, "charter.json");
  writeFileSync(file, JSON.stringify(charter));
  const store = createMemoryStore();
  const opened = openRun(store, { ...config, charter: file });
  await expect(opened).rejects.toMatchObject({ code: "bad-input", message: expect.stringMatching(reason) });
  expect(await store.keys.get("charter")).toBeUndefined();
});

test("openRun() does not replace the charter that another process has begun a run with meanwhile", async () => {
  const disk = createMemoryDisk();
  const store = createMemoryStore({ disk });
  let other: Bytes | undefined;
  const slow: Store = {
    ...store,
    blobs: {
      ...store.blobs,
      put: async (bytes) => {
        if (other === undefined) {
          await openRun(createMemoryStore({ disk }), config);
          other = await store.keys.get("charter");
        }
        return store.blobs.put(bytes);
      },
    },
  };
  await expect(openRun(slow, config)).rejects.toMatchObject({ code: "store" });
  expect(await store.keys.get("charter")).toEqual(other);
});
