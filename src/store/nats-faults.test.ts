/** The store on NATS while servers die, answers get lost and limits are reached. */
import { mkdtempSync, rmSync } from "node:fs";
import { once } from "node:events";
import { createConnection, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StreamConfig } from "@nats-io/jetstream";
import { connect, headers as createHeaders } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createRng } from "../base/rng.ts";
import { digestOf, type Bytes } from "../base/bytes.ts";
import { parseNatsAddress } from "./nats-address.ts";
import { openNatsStore } from "./nats.ts";
import { startNats, type Nats, type NatsFixtureOptions } from "./nats-server.fixture.ts";

const dir = mkdtempSync(join(tmpdir(), "heddle-nats-"));
const started: Nats[] = [];
let folders = 0;
async function start(options: Omit<NatsFixtureOptions, "dir"> = {}): Promise<Nats> {
  const nats = await startNats({ dir: join(dir, String((folders += 1))), ...options });
  started.push(nats);
  return nats;
}
afterAll(async () => {
  await Promise.all(started.map((nats) => nats.close()));
  rmSync(dir, { recursive: true });
});

function entry(i: number, length = 1 + (i % 50)): Bytes {
  const rng = createRng("entry", i);
  return Uint8Array.from({ length }, () => rng.below(256));
}

/** Appends entry after entry, two at a time, until `count` are there; every call has to succeed. */
async function appendAll(
  store: { log: { append(after: number, entries: Bytes[]): Promise<boolean> } },
  from: number,
  count: number,
): Promise<void> {
  for (let i = from; i < count; i += 2) {
    expect(await store.log.append(i, [entry(i), entry(i + 1)])).toBe(true);
  }
}

function expectEntries(read: readonly Bytes[], count: number): void {
  expect(read.map(digestOf)).toEqual(Array.from({ length: count }, (_, i) => digestOf(entry(i))));
}

describe("one server", () => {
  let nats: Nats;
  beforeAll(async () => {
    nats = await start();
  });

  test.concurrent("log.append() and keys take what is larger than a message, and remove what they replace", async () => {
    const address = nats.address("large");
    let store = await openNatsStore(address);
    const large = new Uint8Array(2_500_000).fill(7);
    expect(await store.log.append(0, [entry(0), large, entry(2)])).toBe(true);
    expect(await store.log.append(0, [large])).toBe(false);
    await store.keys.set("k", large);
    expect(await store.keys.compareAndSet("k", entry(1), large)).toBe(false);
    expect(
      await store.keys.compareAndSet(
        "k",
        large,
        large.map((x) => x + 1),
      ),
    ).toBe(true);
    await store.close();
    store = await openNatsStore(address);
    expect((await store.log.read(0, 9)).map(digestOf)).toEqual([entry(0), large, entry(2)].map(digestOf));
    expect((await store.keys.get("k"))?.[2_499_999]).toBe(8);
    expect(await store.blobs.list()).toEqual([]);
    const values = (): Promise<number> =>
      nats.manage(async (manager) => {
        const { state } = await manager.streams.info("large-pieces", { subjects_filter: "large.value.*.size" });
        return Object.keys(state.subjects ?? {}).length;
      });
    expect(await values()).toBe(2); // of the log's entry and of the key
    await store.keys.set("k", entry(1));
    expect(await values()).toBe(1);
    await store.close();
  });

  test.concurrent("log.read() and blobs.slice() ask for few messages of many", async () => {
    const address = nats.address("many");
    let store = await openNatsStore(address);
    await appendAll(store, 0, 600);
    const blob = entry(0, 2_000_000);
    const digest = await store.blobs.put(blob);
    await store.close();
    store = await openNatsStore(address);
    const connection = await connect({ servers: address.servers as string[] });
    let asked = 0;
    const streams = ["many-log", "many-pieces"].flatMap((stream) => [stream, `${stream}.>`]); // not those of tests beside this one
    for (const asks of ["$JS.API.DIRECT.GET", "$JS.API.STREAM.MSG.GET"]) {
      streams.forEach((stream) => connection.subscribe(`${asks}.${stream}`, { callback: () => void (asked += 1) }));
    }
    const count = async (work: () => Promise<void>): Promise<number> => {
      await connection.flush();
      asked = 0;
      await work();
      await connection.flush();
      return asked;
    };
    const bisected = await count(async () =>
      expect((await store.log.read(333, 2)).map(digestOf)).toEqual([333, 334].map((i) => digestOf(entry(i)))),
    );
    expect(bisected).toBeLessThan(15);
    expect(await count(async () => void (await store.log.read(335, 1)))).toBeLessThan(5);
    const sliced = await count(async () =>
      expect(digestOf((await store.blobs.slice(digest, 262_000, 262_300)) as Bytes)).toBe(
        digestOf(blob.slice(262_000, 262_300)),
      ),
    );
    expect(sliced).toBe(3); // its size and two pieces
    expectEntries(await store.log.read(0, 1_000), 600);
    await connection.close();
    await store.close();
  });

  test.concurrent.each([
    { known: "the server", duplicate_window: 120_000_000_000 },
    { known: "what is stored", duplicate_window: 100_000_000 },
  ])("a write whose answer is lost is done once and said to be done, known by $known", async ({ duplicate_window }) => {
    const name = `lost-${duplicate_window}`;
    await nats.manage(async ({ streams }) => {
      const shared = { duplicate_window } as Partial<StreamConfig>;
      await streams.add({ ...shared, name: `${name}-log`, subjects: [`${name}.log`] });
      await streams.add({ ...shared, name: `${name}-keys`, subjects: [`${name}.key.*`], max_msgs_per_subject: 1 });
    });
    const proxy = await startProxy(nats.servers[0]?.port as number);
    const store = await openNatsStore(parseNatsAddress(`nats://127.0.0.1:${proxy.port}/${name}`));
    expect(await store.log.append(0, [entry(0)])).toBe(true);
    proxy.deafen(300);
    expect(await store.log.append(1, [entry(1), entry(2)])).toBe(true);
    proxy.deafen(300);
    expect(await store.keys.compareAndSet("k", undefined, entry(1))).toBe(true);
    expectEntries(await store.log.read(0, 9), 3);
    expect(await store.log.append(1, [entry(1), entry(2)])).toBe(false);
    await store.close();
    await proxy.close();
  });

  test.concurrent("a key whose deletion was cut off is absent", async () => {
    const store = await openNatsStore(nats.address("cut"));
    await store.keys.set("k", entry(1));
    const headers = createHeaders();
    headers.set("Heddle-Deleted", "1");
    const subject = `cut.key.${Buffer.from("k").toString("base64url")}`;
    await nats.manage((manager) => manager.jetstream().publish(subject, new Uint8Array(), { headers }));
    expect([await store.keys.get("k"), await store.keys.list("")]).toEqual([undefined, []]);
    expect(await store.keys.compareAndSet("k", undefined, entry(2))).toBe(true);
    expect(await store.keys.list("")).toEqual(["k"]);
    await store.close();
  });

  test.concurrent("sweep() removes what is left of a put and a set that were cut off, and nothing else", async () => {
    const address = nats.address("swept");
    const proxy = await startProxy(nats.servers[0]?.port as number);
    const cut = await openNatsStore(parseNatsAddress(`nats://127.0.0.1:${proxy.port}/swept`), { patienceMs: 500 });
    const store = await openNatsStore(address);
    const [whole, large] = [entry(1, 600_000), entry(2, 1_500_000)];
    const digest = await store.blobs.put(whole);
    await store.keys.set("large", large);
    expect(await store.log.append(0, [large])).toBe(true);
    const parts = (): Promise<string[]> =>
      nats.manage(async ({ streams }) => {
        const { state } = await streams.info("swept-pieces", { subjects_filter: ">" });
        return Object.keys(state.subjects ?? {}).sort();
      });
    const before = await parts();

    proxy.deafen(60_000); // of eight pieces nothing is heard, and no more are sent
    const put = expect(cut.blobs.put(entry(3, 5_000_000))).rejects.toThrow("has not answered");
    await vi.waitUntil(async () => (await parts()).length === before.length + 8, { timeout: 15_000 });
    await proxy.close();
    await put;
    await cut.close();
    // Of sets: one was cut off before its size, and one before its key.
    for (const part of ["key-part.0", "key-lost.0", "key-lost.size"]) {
      const size = '{"bytes":2,"pieceBytes":2}';
      await nats.manage((manager) => manager.jetstream().publish(`swept.value.${part}`, size));
    }

    expect([await store.blobs.list(), await store.keys.list("")]).toEqual([[digest], ["large"]]);
    expect(await store.sweep?.(60_000), "it may be under way").toBe(0);
    expect((await parts()).length).toBe(before.length + 11);
    expect(await store.sweep?.(0)).toBe(3);
    expect(await parts()).toEqual(before);
    expect(digestOf((await store.blobs.get(digest)) as Bytes)).toBe(digest);
    expect(digestOf((await store.keys.get("large")) as Bytes)).toBe(digestOf(large));
    expect((await store.log.read(0, 9)).map(digestOf)).toEqual([digestOf(large)]);
    await store.close();
  });

  test.concurrent("a full stream refuses with a sentence and keeps what it has", async () => {
    await nats.manage(({ streams }) =>
      streams.add({ name: "full-log", subjects: ["full.log"], max_bytes: 20_000, discard: "new" }),
    );
    const store = await openNatsStore(nats.address("full"));
    expect(await store.log.append(0, [entry(0)])).toBe(true);
    await expect(store.log.append(1, [entry(1, 50_000)])).rejects.toMatchObject({
      code: "store",
      message:
        "Cannot append to the log: the stream is full or cannot be written (maximum bytes exceeded); raise its limit or make room",
    });
    expect(await store.log.append(1, [entry(1)])).toBe(true);
    expectEntries(await store.log.read(0, 9), 2);
    await store.close();
  });
});

test.concurrent("openNatsStore() says that no server answers, that there is no JetStream, or that a cluster is too small", async () => {
  const [off, one] = await Promise.all([start({ jetStream: "off" }), start()]);
  const open = (url: string): Promise<unknown> => openNatsStore(parseNatsAddress(url), { patienceMs: 500 });
  await expect(open("nats://127.0.0.1:1/run")).rejects.toMatchObject({
    code: "store",
    message: "Cannot open the store at nats://127.0.0.1:1/run: no server answers",
  });
  await expect(open(off.url())).rejects.toThrow(
    /^Cannot open the store: NATS at .* has no JetStream for us; start the server with -js/,
  );
  await one.manage(({ streams }) => streams.add({ name: "run-log", subjects: ["other.log"] }));
  await expect(open(one.url("run"))).rejects.toThrow(
    /^Cannot open the stream "run-log": got .* "other.log", need "run.log"/,
  );
  await expect(open(`${one.url()}?replicas=3`)).rejects.toThrow(/^Cannot open the stream "heddle-\w+": .*replicas/);
  const locked = await start({
    config: `accounts { A { users: [{ user: a, password: right }], jetstream: enabled }, B { users: [{ user: b, password: b }] } }`,
  });
  const as = (login: string): string => locked.url().replace("nats://", `nats://${login}@`);
  await (await openNatsStore(parseNatsAddress(as("a:right")))).close();
  await expect(open(as("a:wrong"))).rejects.toThrow(
    /^Cannot open the store at nats:\/\/127[^@]*: the login is refused$/,
  );
  await expect(open(as("b:b"))).rejects.toThrow(/has no JetStream for us/);
});

test.concurrent("openNatsStore() makes a new store once, however many relays open it at the same time", async () => {
  const nats = await start();
  for (let run = 0; run < 20; run += 1) {
    const stores = await Promise.all(Array.from({ length: 6 }, () => openNatsStore(nats.address(`run-${run}`))));
    expect(await stores[0]?.log.append(0, [entry(0)])).toBe(true);
    expect(await stores[5]?.log.length()).toBe(1);
    await Promise.all(stores.map((store) => store.close()));
  }
});

test.concurrent("the whole server killed and started again: calls wait for it, and fail with a sentence when it stays away", async () => {
  const nats = await start();
  const [server] = nats.servers;
  const store = await openNatsStore(nats.address());
  const hasty = await openNatsStore(nats.address(), { patienceMs: 500 });
  const digest = await store.blobs.put(entry(3, 300_000));
  await appendAll(store, 0, 20);
  await server?.kill();
  const [waiting, reading] = [store.log.append(20, [entry(20), entry(21)]), store.blobs.get(digest)];
  await expect(hasty.keys.get("k")).rejects.toMatchObject({
    code: "store",
    message: expect.stringMatching(/^Cannot read a key: NATS at nats:.* has not answered for/),
  });
  await server?.start();
  expect(await waiting).toBe(true);
  expect(digestOf((await reading) as Bytes)).toBe(digest);
  await appendAll(store, 22, 40);
  expectEntries(await store.log.read(0, 99), 40);
  // Its connection is opened anew after a pause, which may be longer than the patience of one call.
  await vi.waitFor(async () => expect(await hasty.keys.get("k")).toBeUndefined(), { timeout: 15_000 });
  await store.close();
  await hasty.close();
});

interface Proxy {
  readonly port: number;
  /** Passes nothing of what the server says for a while, and then cuts the connections. */
  deafen(ms: number): void;
  close(): Promise<void>;
}

async function startProxy(target: number): Promise<Proxy> {
  let deaf = false;
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = createConnection(target, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => socket.destroy());
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
        sockets.delete(socket);
      });
    }
    client.pipe(upstream);
    upstream.on("data", (chunk) => deaf || client.write(chunk));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = (): void => sockets.forEach((socket) => socket.destroy());
  return {
    port: (server.address() as AddressInfo).port,
    deafen: (ms) => {
      deaf = true;
      setTimeout(() => {
        deaf = false;
        cut();
      }, ms);
    },
    close: async () => {
      cut();
      await new Promise((settle) => server.close(settle));
    },
  };
}
