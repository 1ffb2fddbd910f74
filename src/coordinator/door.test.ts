import { describe, expect, test } from "vitest";
import { present } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Link } from "../net/link.ts";
import { contributionIdOf, decodeRelayMessage } from "../protocol/codec.ts";
import { exampleRelayMessages } from "../protocol/examples.ts";
import { Door, NEWS_AT_A_TIME, type DoorHost } from "./door.ts";
import { calm, Actor, honestDelta, joined, pack, started } from "./rehearsal.fixture.ts";
import { createGate, HELLO_RATE } from "./gate.ts";
import { HOLD_MS, HOLDS_MAX, MESSAGE_RATE } from "./peer.ts";

describe("a relay's door", () => {
  test("tells a network that says hello too often when to come back, each a time of its own, and lets others in", async () => {
    const world = await started();
    const actors: Actor[] = [];
    for (let i = 0; i < HELLO_RATE.burst + 3; i += 1) {
      const actor = new Actor(world, `a${i}`, { prefix: "192.0.2.0/24" });
      actors.push(actor);
      await actor.connect();
    }
    const refused = actors.filter((actor) => actor.last("welcome") === undefined);
    expect(refused.map((actor) => actor.last("refused"))).toEqual(
      [1, 2, 3].map((n) => ({ type: "refused", reason: "busy", retryMs: (n * 1_000) / HELLO_RATE.perS })),
    );
    expect(refused.every((actor) => actor.closed !== null && actor.last("challenge") === undefined)).toBe(true);
    const other = new Actor(world, "other", { prefix: "198.51.100.0/24" });
    await other.connect();
    expect(other.last("welcome")).toBeDefined();
    await world.pass(1_000 / HELLO_RATE.perS);
    await refused[0]?.connect();
    expect(refused[0]?.last("welcome")).toBeDefined();
  });

  test("has room again when sessions end, also those that never proved a key", async () => {
    const world = await started({ gate: { sessionsMax: 1 } });
    const eve = new Actor(world, "eve");
    await eve.connect(new Uint8Array(64));
    expect(eve.closed).not.toBeNull();
    const [ada] = (await joined(world, "ada")) as [Actor];
    const bob = new Actor(world, "bob");
    await bob.connect();
    expect(bob.last("refused")).toMatchObject({ reason: "busy" });
    ada.send({ type: "leave" });
    await calm(world.host);
    await world.pass(bob.last("refused")?.retryMs ?? 0);
    await bob.connect();
    expect(bob.last("welcome")).toBeDefined();
  });
});

describe("a session that sends too many messages", () => {
  /** Sends `perS` messages a second for so long; `hold` is what the lane offers. */
  const flood = async (perS: number, seconds: number, hold?: (ms: number) => void): Promise<Actor> => {
    const world = await started();
    const eve = new Actor(world, "eve", hold === undefined ? { prefix: null } : { prefix: null, hold });
    await eve.connect();
    for (let second = 0; second < seconds && eve.closed === null; second += 1) {
      Array.from({ length: perS }, () => eve.send({ type: "ping" }));
      await world.pass(1_000);
    }
    return eve;
  };

  test("is not read from for a while each time, then refused with a time to come back", async () => {
    const holds: number[] = [];
    const eve = await flood(2 * MESSAGE_RATE.perS, 60, (ms) => holds.push(ms));
    expect(holds).toEqual(Array.from({ length: HOLDS_MAX + 1 }, () => HOLD_MS));
    expect(eve.last("refused")).toMatchObject({ reason: "busy", retryMs: expect.any(Number) });
    expect(eve.closed).toMatch(/more messages than can be read/);
  });

  test("is refused at once where its lane cannot wait", async () => {
    expect((await flood(3 * MESSAGE_RATE.burst, 1)).closed).toMatch(/more messages than can be read/);
  });

  test("is not one that sends as many as there may be", async () => {
    expect((await flood(MESSAGE_RATE.perS - 2, 120)).closed).toBeNull();
  });

  test("is one that sends pieces that nobody waits for", async () => {
    const world = await started();
    const eve = new Actor(world, "eve");
    await eve.connect();
    const contribution = contributionIdOf(Uint8Array.of(1));
    for (let index = 0; index < 3 * MESSAGE_RATE.burst; index += 1) {
      eve.send({ type: "piece", contribution, index: 0, bytes: Uint8Array.of(1) });
      await calm(world.host);
    }
    expect(eve.closed).toMatch(/more messages than can be read/);
    expect(eve.last("refused")?.reason).toBe("busy");
  });

  test("is one that sends a contribution again and again, each time after its answer", async () => {
    const world = await started();
    const [eve] = (await joined(world, "eve")) as [Actor];
    const { message } = await eve.contribution(pack(honestDelta(eve.base)));
    for (let n = 0; n < 3 * MESSAGE_RATE.burst; n += 1) {
      eve.send(message);
      await calm(world.host);
    }
    expect(eve.closed).toMatch(/more messages than can be read/);
    expect(world.host.view().versions.length).toBeGreaterThan(0);
  });

  test("is one that sends contributions to rounds that are over", async () => {
    const world = await started();
    const [eve] = (await joined(world, "eve")) as [Actor];
    const { message } = await eve.contribution(pack(honestDelta(eve.base)), { round: 0 });
    for (let n = 0; n < 3 * MESSAGE_RATE.burst; n += 1) {
      eve.send(message);
      await calm(world.host);
    }
    expect(eve.closed).toMatch(/more messages than can be read/);
  });
});

test("send() passes on other messages before news of a version that wait behind the first of them, each session's in order", () => {
  const later: (() => void)[] = [];
  const host = { nowMs: () => 0, after: (_: number, wake: () => void) => later.push(wake) } as unknown as DoorHost;
  const door = new Door(createGate(), host);
  const sent: [number, string][] = [];
  const sessions = Array.from({ length: NEWS_AT_A_TIME + 2 }, (_, i) => i + 1);
  for (const session of sessions) {
    const said = (bytes: Bytes): void => {
      const read = decodeRelayMessage(bytes);
      sent.push([session, read.ok ? read.value.type : "nothing"]);
    };
    door.attach({ send: said, close: () => undefined } as unknown as Link);
  }
  const news = present(
    exampleRelayMessages.find(({ type }) => type === "version"),
    "an example",
  );
  sessions.forEach((session) => door.send(session, news));
  expect(sent).toEqual(sessions.slice(0, NEWS_AT_A_TIME).map((session) => [session, "version"]));
  door.send(1, { type: "pong" });
  door.send(NEWS_AT_A_TIME + 2, { type: "pong" });
  later.shift()?.();
  expect(sent.slice(NEWS_AT_A_TIME)).toEqual([
    [1, "pong"],
    [NEWS_AT_A_TIME + 2, "version"],
    [NEWS_AT_A_TIME + 2, "pong"],
    [NEWS_AT_A_TIME + 1, "version"],
  ]);
  expect(later).toEqual([]);
});
