import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { BUS_CASES, CONTRACT_QUEUE_BYTES_MAX } from "./bus-contract.ts";
import { createMemoryHub } from "./bus-memory.ts";
import { openNatsBus } from "./bus-nats.ts";
import { startNats, type Nats } from "./nats-server.fixture.ts";

const queueBytesMax = CONTRACT_QUEUE_BYTES_MAX;

describe("createMemoryHub() keeps the contract", () => {
  test.each(BUS_CASES)("$name", ({ run }) => {
    const hub = createMemoryHub({ queueBytesMax });
    return run({ connect: async () => hub.connect() });
  });
});

test("createMemoryHub().interrupt() loses what is on the way and tells every end", async () => {
  const hub = createMemoryHub();
  const [one, other] = [hub.connect(), hub.connect()];
  const [told, got]: [string[], number[]] = [[], []];
  one.onInterrupt((reason) => told.push(reason));
  other.onInterrupt((reason) => told.push(reason));
  await other.subscribe("a", ([first = -1]) => got.push(first));
  one.publish("a", Uint8Array.of(1));
  hub.interrupt("The cable was pulled");
  one.publish("a", Uint8Array.of(2));
  await vi.waitUntil(() => got.length > 0);
  expect([told, got]).toEqual([["The cable was pulled", "The cable was pulled"], [2]]);
});

const dir = mkdtempSync(join(tmpdir(), "heddle-bus-"));
afterAll(() => rmSync(dir, { recursive: true }));

describe.each([1, 3])("openNatsBus() keeps the contract on %i server(s)", (servers) => {
  let nats: Nats;
  let runs = 0;
  beforeAll(async () => {
    nats = await startNats({ dir: mkdtempSync(join(dir, "nats-")), servers });
  });
  afterAll(() => nats.close());

  test.each(BUS_CASES)("$name", ({ run }) => {
    const { name, servers: all, ...address } = nats.address(`bus-${(runs += 1)}`);
    let ends = 0;
    // Every end at another server of the cluster.
    const near = (): readonly string[] => [all[(ends += 1) % all.length] as string];
    return run({ connect: () => openNatsBus({ ...address, name, servers: near() }, { queueBytesMax }) });
  });

  test("who answers just after the question is heard, as where servers of a cluster have not told each other yet", async () => {
    const { servers: all, ...address } = nats.address(`bus-${(runs += 1)}`);
    const ends = all.map((server) => openNatsBus({ ...address, servers: [server] }));
    const [asking, answering] = [await (ends[0] as (typeof ends)[0]), await (ends.at(-1) as (typeof ends)[0])];
    const reply = asking.request("a", Uint8Array.of(1), 5_000);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await answering.answer("a", async ([first = 0]) => Uint8Array.of(first + 1));
    expect([...(await reply)]).toEqual([2]);
    await Promise.all(ends.map(async (end) => (await end).close()));
  });

  test("a server that is killed interrupts those at it, who are told and go on when they are back", async () => {
    const { servers: all, ...address } = nats.address(`bus-${(runs += 1)}`);
    const [victim] = nats.servers;
    const bus = await openNatsBus({ ...address, servers: [all[0] as string] });
    const told: string[] = [];
    bus.onInterrupt((reason) => told.push(reason));
    const got: number[] = [];
    await bus.subscribe("a", ([first = -1]) => got.push(first));
    await victim?.kill();
    await vi.waitUntil(() => told.length > 0, { timeout: 10_000 });
    if (servers === 1) {
      expect(() => bus.publish("a", Uint8Array.of(1))).toThrow("the bus is away");
    }
    await victim?.start();
    await vi.waitUntil(
      () => {
        try {
          bus.publish("a", Uint8Array.of(2));
        } catch {
          return false;
        }
        return got.includes(2);
      },
      { timeout: 20_000, interval: 50 },
    );
    expect(told).toEqual(["The connection between the relays broke"]);
    await bus.close();
  });

  test("what could not be subscribed to is not subscribed to later", async () => {
    const { servers: all, ...address } = nats.address(`bus-${(runs += 1)}`);
    const bus = await openNatsBus({ ...address, servers: [all[0] as string] });
    const got: number[] = [];
    const [ghost, sound] = [vi.fn(), ([first = -1]: Uint8Array) => got.push(first)];
    const killed = nats.servers[0]?.kill();
    const failed = bus.subscribe("a", ghost).catch((error: unknown) => error);
    await killed;
    await nats.servers[0]?.start();
    const subscribed = typeof (await failed) === "function"; // else the server was gone before it could say that it knows
    await vi.waitUntil(
      async () => {
        try {
          if (got.length === 0) {
            await bus.subscribe("a", sound);
            bus.publish("a", Uint8Array.of(1));
          }
        } catch {
          return false;
        }
        return got.length > 0;
      },
      { timeout: 20_000, interval: 50 },
    );
    expect(ghost.mock.calls.length > 0).toBe(subscribed);
    await bus.close();
  });
});

test("openNatsBus() says where no server answers", async () => {
  const nats = await startNats({ dir: mkdtempSync(join(dir, "nats-")) });
  await nats.close();
  await expect(openNatsBus(nats.address())).rejects.toMatchObject({
    code: "store",
    message: expect.stringMatching(/^Cannot open the bus at nats:.*: no server answers$/) as string,
  });
});
