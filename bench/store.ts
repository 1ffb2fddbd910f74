/**
 * How fast stores are durable: `npm run bench store`, or with a number of appends (default 1,000) and of blobs of 16 MiB
 * (default 8): `npm run bench store 200 2`. The embedded store, NATS on one server and on a cluster of three, all on this
 * machine (the command nats-server has to be there). Prints JSON.
 *
 * An append has three entries of 300 bytes, as a tick of a round has, and waits for the one before; its times are milliseconds.
 * Blobs are put and read whole one after the other, and read in slices as the relay's HTTP face does; MB/s.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { assert } from "../src/base/assert.ts";
import type { Bytes } from "../src/base/bytes.ts";
import { createRng } from "../src/base/rng.ts";
import { quantile } from "../src/base/statistics.ts";
import { openEmbeddedStore } from "../src/store/embedded.ts";
import { startNats } from "../src/store/nats-server.fixture.ts";
import { openNatsStore } from "../src/store/nats.ts";
import type { Store } from "../src/store/store.ts";
import { readWhole } from "./load/options.ts";

const BLOB_BYTES = 16 * 1_048_576;
const SLICE_BYTES = 262_144;
const ENTRIES = 3;
const ENTRY_BYTES = 300;
const [, , givenAppends = 1_000, givenBlobs = 8] = process.argv;
const appends = readWhole("as many appends as", givenAppends);
const blobs = readWhole("as many blobs as", givenBlobs);

const rng = createRng("store bench");
const dir = mkdtempSync(join(tmpdir(), "heddle-bench-"));
try {
  const results = {
    embedded: await measure(await openEmbeddedStore(join(dir, "embedded"))),
    "nats, 1 server": await onNats(1),
    "nats, 3 servers": await onNats(3),
  };
  process.stdout.write(
    `${JSON.stringify({ cpu: cpus()[0]?.model, cores: cpus().length, appends, blobs, results }, null, 2)}\n`,
  );
} finally {
  rmSync(dir, { recursive: true });
}

async function onNats(servers: number): Promise<object> {
  await using nats = await startNats({ dir: mkdtempSync(join(dir, "nats-")), servers });
  return await measure(await openNatsStore(nats.address())); // before the servers end
}

async function measure(store: Store): Promise<object> {
  const waits: number[] = [];
  for (let i = 0; i < appends; i += 1) {
    const entries = Array.from({ length: ENTRIES }, () => random(ENTRY_BYTES));
    waits.push(
      await timeOf(async () => assert(await store.log.append(i * ENTRIES, entries), "Expected it to be taken")),
    );
  }
  const values = Array.from({ length: blobs }, () => random(BLOB_BYTES));
  const spent = { put: 0, get: 0, slice: 0 };
  for (const value of values) {
    let digest = await store.blobs.put(random(1));
    spent.put += await timeOf(async () => void (digest = await store.blobs.put(value)));
    spent.get += await timeOf(() => store.blobs.get(digest));
    spent.slice += await timeOf(async () => {
      for (let at = 0; at < BLOB_BYTES; at += SLICE_BYTES) {
        await store.blobs.slice(digest, at, at + SLICE_BYTES);
      }
    });
  }
  await store.close();
  const speed = (ms: number): number => Number(((blobs * BLOB_BYTES) / ms / 1_000).toPrecision(3));
  return {
    appendMs: { p50: rounded(quantile(waits, 0.5)), p99: rounded(quantile(waits, 0.99)) },
    blobMBPerS: { put: speed(spent.put), get: speed(spent.get), slice: speed(spent.slice) },
  };
}

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

function random(length: number): Bytes {
  return new Uint8Array(
    Uint32Array.from({ length: Math.ceil(length / 4) }, () => rng.below(2 ** 32)).buffer,
    0,
    length,
  );
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
