import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StoredMsg } from "@nats-io/jetstream";
import { headers as createHeaders } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { present } from "../base/assert.ts";
import type { Bytes, Digest } from "../base/bytes.ts";
import { CONTRACT_BLOB_BYTES_MAX, STORE_CASES, type StorePlace } from "./contract.ts";
import { forgetsInCluster } from "./jetstream.ts";
import { connectNats } from "./nats-connection.ts";
import { openNatsStore } from "./nats.ts";
import { startNats, type Nats } from "./nats-server.fixture.ts";

const dir = mkdtempSync(join(tmpdir(), "heddle-nats-"));
const started: Nats[] = [];
async function start(servers: number): Promise<Nats> {
  const nats = await startNats({ dir: mkdtempSync(join(dir, "nats-")), servers });
  started.push(nats);
  return nats;
}
afterAll(async () => {
  await Promise.all(started.map((nats) => nats.close()));
  rmSync(dir, { recursive: true });
});

let stores = 0;

/** A store that no other test uses. */
function natsPlace(nats: Nats): StorePlace {
  const address = nats.address(`store-${(stores += 1)}`);
  return {
    open: () => openNatsStore(address, { blobBytesMax: CONTRACT_BLOB_BYTES_MAX }),
    damage: (digest) => damage(nats, address.name, digest),
  };
}

/** Zeros in place of the first piece, or of the bytes that lie with the size, on every replica when it resolves. */
async function damage(nats: Nats, name: string, digest: Digest): Promise<void> {
  const stream = `${name}-pieces`;
  await nats.manage(async (manager) => {
    const last = (part: string): Promise<StoredMsg | null> =>
      manager.streams.getMessage(stream, { last_by_subj: `${name}.blob.${digest}.${part}` });
    const piece = present((await last("0")) ?? (await last("size")), "a piece to damage");
    const headers = createHeaders(); // not its id: the server would take it for the same message
    headers.set("Heddle-Size", piece.header.get("Heddle-Size"));
    await manager.jetstream().publish(piece.subject, new Uint8Array(piece.data.length), { headers });
    await vi.waitUntil(
      async () => {
        const { cluster } = await manager.streams.info(stream);
        return (cluster?.replicas ?? []).every(({ current, lag = 0 }) => current && lag === 0);
      },
      { timeout: 30_000, interval: 50 },
    );
  });
}

test.each([
  ["2.9.10", true],
  ["2.10.0", false],
  ["2.10.27", false],
  ["3.0.0-beta", false],
])("forgetsInCluster(%s) is %s", (version, forgets) => {
  expect(forgetsInCluster(version)).toBe(forgets);
});

// All at once, since a cluster mostly waits: for elections, and for its files.
describe.concurrent("a cluster of three", () => {
  test("loses nothing acknowledged and has nothing twice when a leader is killed in the middle of appends", async () => {
    const nats = await start(3);
    const store = await openNatsStore(nats.address());
    const entry = (i: number): Bytes => new Uint8Array(Uint32Array.of(i, i * i).buffer);
    let written = 0;
    const stop = new AbortController();
    const writing = (async () => {
      for (; !stop.signal.aborted; written += 2) {
        expect(await store.log.append(written, [entry(written), entry(written + 1)])).toBe(true);
      }
    })();
    await vi.waitUntil(() => written > 50, { timeout: 20_000 });
    const leader = await nats.manage(async ({ streams }) => (await streams.info("heddle-log")).cluster?.leader);
    const victim = nats.servers.find(({ name }) => name === leader);
    expect(victim).toBeDefined();
    await victim?.kill();
    const before = written;
    await vi.waitUntil(() => written > before + 50, { timeout: 30_000 });
    await victim?.start();
    stop.abort();
    await writing;
    const another = await openNatsStore(nats.address());
    expect(await another.log.length()).toBe(written);
    const entries = await another.log.read(0, written + 1);
    expect(entries).toEqual(Array.from({ length: written }, (_, i) => entry(i)));
    await store.close();
    await another.close();
  });
});

describe.concurrent.each([1, 3])("openNatsStore() keeps the contract on %i server(s)", (servers) => {
  let nats: Nats;
  beforeAll(async () => {
    nats = await start(servers);
  });
  test.each(STORE_CASES)("$name", ({ run }) => run(natsPlace(nats)));

  test("prepareStream() leaves the replicas as they are where the address names none", async () => {
    const address = nats.address("replicas");
    for (const [replicas, expected] of [
      [1, 1],
      [null, 1],
      [servers, servers],
      [null, servers],
    ] as const) {
      await (await openNatsStore({ ...address, replicas })).close();
      const { config } = await nats.manage(({ streams }) => streams.info("replicas-log"));
      expect(config.num_replicas).toBe(expected);
    }
  });

  test("openNatsStore() warns of a cluster whose servers forget what they have when they are killed", async () => {
    const address = nats.address("warned");
    const connection = await connectNats(address, "ask for the version");
    const forgets = servers > 1 && forgetsInCluster(connection.info?.version ?? "");
    await connection.close();
    const warnings: string[] = [];
    await (await openNatsStore(address, { onWarning: (sentence) => warnings.push(sentence) })).close();
    expect(warnings).toEqual(forgets ? [expect.stringMatching(/older than 2\.10/)] : []);
  });
});
