/**
 * The kinds of faults that `npm run faults` makes. Each act draws what happens, to whom and when from its seed alone; real time does the
 * rest, so a seed says where to look and not what will be found there.
 */
import process from "node:process";
import { assert } from "../../src/base/assert.ts";
import { permutation, type Rng } from "../../src/base/rng.ts";
import { LASTED_MS } from "../../src/contributor/state.ts";
import type { Crowd, Heard } from "./crowd.ts";
import { FAIR, type HalfOpen, type Line, type Weather } from "../fixtures/line.ts";
import { until, type Relay, type Stage, type StageOptions } from "./stage.ts";

export interface World {
  readonly stage: Stage;
  readonly crowd: Crowd;
  readonly rng: Rng;
  /** Says what was drawn, for whoever looks at a failure. */
  readonly say: (sentence: string) => void;
}

/** In milliseconds since the fault. */
export interface Recovery {
  /** Until a relay leads again, where the lead was lost. */
  readonly leadMs?: number;
  /** Until every contributor knows of accepted work that it sent after the fault. */
  readonly againMs: number;
  /** The longest that a contributor had no relay, where that is looked at. */
  readonly apartMs?: number;
}

export interface Kind {
  readonly name: string;
  readonly what: string;
  readonly count: number;
  readonly members: number;
  readonly stage: StageOptions;
  readonly act: (world: World) => Promise<Recovery>;
}

const AGAIN_MS = 60_000;
/** A contributor whose relay ends dials again after a random share of 0.1 s, and where that is not the last in a row of twice as much. */
const APART_MS_MAX = 2_000;
const MOMENT_MS_MAX = 1_500;
/** After a message that a moment waits for. */
const SOON_MS_MAX = 30;
const HEARD: readonly Heard[] = ["assign", "contribute", "report", "verdict", "version", "ready"];

/** Half of the moments are any, half come just after a message. */
async function moment({ crowd, rng, say }: World): Promise<void> {
  const [any, type] = [rng.below(2) === 0, HEARD[rng.below(HEARD.length)] as Heard];
  const ms = rng.float() * (any ? MOMENT_MS_MAX : SOON_MS_MAX);
  if (!any) {
    await Promise.race([crowd.next(type), sleep(MOMENT_MS_MAX)]);
  }
  say(`${Math.round(ms)} ms after ${any ? "the last" : `"${type}"`}`);
  await sleep(ms);
}

async function killEdge(world: World): Promise<Recovery> {
  const { stage, crowd, rng } = world;
  const victim = pick(stage.edges(), rng);
  await moment(world);
  await stage.kill(victim);
  const again = crowd.goesOn(AGAIN_MS);
  await all(again, stage.launch(victim.name));
  return { againMs: await again };
}

async function killLeader(world: World): Promise<Recovery> {
  const { stage, crowd } = world;
  await moment(world);
  const leader = stage.leader();
  const killedMs = await stage.kill(leader);
  const again = crowd.goesOn(AGAIN_MS);
  const next = stage.nextLeader(leader);
  await all(again, next, stage.launch(leader.name));
  return { leadMs: (await next) - killedMs, againMs: await again };
}

/** Every relay is asked to end and started again, one after the other, as an update does it; nobody may be without one meanwhile. */
async function restartAll(world: World): Promise<Recovery> {
  const { stage, crowd, rng, say } = world;
  const took = { againMs: 0, leadMs: 0 };
  crowd.apartMs(); // what was before
  const relays = stage.relays();
  for (const i of permutation(relays.length, rng)) {
    const relay = relays[i] as Relay;
    await moment(world);
    const [leads, atMs] = [relay === stage.leader(), Date.now()];
    const again = crowd.goesOn(AGAIN_MS);
    const next = leads ? stage.nextLeader(relay) : Promise.resolve(atMs);
    await all(again, next, stage.restart(relay));
    took.leadMs = Math.max(took.leadMs, (await next) - atMs);
    took.againMs = Math.max(took.againMs, await again);
    await sleep(LASTED_MS); // an operator looks whether it is back, and those waits begin anew
  }
  const apartMs = crowd.apartMs();
  say(`nobody without a relay for longer than ${Math.round(apartMs)} ms`);
  assert(apartMs <= APART_MS_MAX, `Somebody had no relay for ${Math.round(apartMs)} ms, need at most ${APART_MS_MAX}`);
  return { ...took, apartMs };
}

async function killAlone(world: World): Promise<Recovery> {
  const { stage, crowd } = world;
  await moment(world);
  const relay = stage.leader();
  const killedMs = await stage.kill(relay);
  const again = crowd.goesOn(AGAIN_MS);
  const { process: next } = await stage.launch(relay.name, relay.port);
  const listening = await next.waitFor(({ event }) => event === "listening");
  return { leadMs: Date.parse(String(listening["time"])) - killedMs, againMs: await again };
}

async function killNats(world: World): Promise<Recovery> {
  const { stage, crowd, rng, say } = world;
  const server = pick(stage.nats.servers, rng);
  await moment(world);
  say(`node ${server.name}`);
  const [leader, killedMs] = [stage.leader(), Date.now()];
  await server.kill();
  const againMs = await crowd.goesOn(AGAIN_MS);
  await server.start();
  await stage.natsCaughtUp();
  return recovered(world, { leader, atMs: killedMs, againMs });
}

/** The leader stands still, as a machine that is suspended does, and goes on when another one leads. */
function suspend(world: World): Promise<Recovery> {
  return spoil(world, 1_000 + world.rng.float() * 4_000, ({ process: { pid } }) => {
    process.kill(pid, "SIGSTOP");
    return () => process.kill(pid, "SIGCONT");
  });
}

/** The leader is cut off from NATS for a while; contributors still reach it. */
function cutOff(world: World): Promise<Recovery> {
  return spoil(world, 500 + world.rng.float() * 5_000, (leader) => {
    const line = world.stage.line(leader);
    line.set({ ...FAIR, cut: true });
    return () => line.set(FAIR);
  });
}

/** Does something to the leader, which gives what undoes it after `ms`. */
async function spoil(world: World, ms: number, begin: (leader: Relay) => () => unknown): Promise<Recovery> {
  const { stage, crowd } = world;
  await moment(world);
  const [leader, atMs] = [stage.leader(), Date.now()];
  const end = begin(leader);
  const again = crowd.goesOn(AGAIN_MS);
  again.catch(() => undefined); // it is waited for below
  await sleep(ms);
  end();
  return recovered(world, { leader, atMs, againMs: await again });
}

/** When every relay is there again: how long it took, and until another than `leader` led, if one does. */
async function recovered(
  world: World,
  { leader, atMs, againMs }: { readonly leader: Relay; readonly atMs: number; readonly againMs: number },
): Promise<Recovery> {
  const { stage } = world;
  await whole(world);
  const changed = stage.leader() !== leader;
  return { againMs, ...(changed ? { leadMs: (await stage.nextLeader(leader)) - atMs } : {}) };
}

/** Every relay is there again, those that ended by themselves included. */
function whole({ stage }: World): Promise<void> {
  return until("every relay to be back", () => stage.isWhole());
}

const WEATHER_MS = 2_500;

/** Every contributor's line gets the same weather, until the next act. */
function weather(draw: (rng: Rng) => Partial<Weather>): Kind["act"] {
  return async ({ crowd, rng, say }) => {
    const drawn = { ...FAIR, ...draw(rng) };
    say(JSON.stringify(drawn));
    crowd.members.forEach(({ line }) => line.set(drawn));
    const againMs = await crowd.goesOn(AGAIN_MS);
    await sleep(Math.max(0, WEATHER_MS - againMs));
    return { againMs };
  };
}

/** Some contributors reach nobody, now and then for longer than a silent peer is waited for. */
async function partition(world: World): Promise<Recovery> {
  const { crowd, rng, say } = world;
  const ms = rng.below(10) === 0 ? 15_000 + rng.float() * 5_000 : 200 + rng.float() * 4_000;
  const some = crowd.members.filter(() => rng.below(2) === 0);
  const apart = some.length === 0 ? crowd.members : some;
  await moment(world);
  say(`${apart.length} of ${crowd.members.length} for ${Math.round(ms)} ms`);
  apart.forEach(({ line }) => line.set({ ...FAIR, cut: true }));
  await sleep(ms);
  apart.forEach(({ line }) => line.set(FAIR));
  return { againMs: await crowd.goesOn(AGAIN_MS) };
}

const UNAWARE: readonly HalfOpen[] = ["contributor", "relay", "both"];

/** Every contributor's connections end, and not everybody learns of it. */
async function halfOpen(world: World): Promise<Recovery> {
  const { crowd, rng, say } = world;
  const drawn = crowd.members.map(({ line }): { line: Line; unaware: HalfOpen; ms: number } => ({
    line,
    unaware: pick(UNAWARE, rng),
    ms: rng.float() * 1_000,
  }));
  await moment(world);
  say(drawn.map(({ unaware }) => unaware).join(", "));
  await Promise.all(
    drawn.map(async ({ line, unaware, ms }) => {
      await sleep(ms);
      line.abandon(unaware);
    }),
  );
  return { againMs: await crowd.goesOn(AGAIN_MS) };
}

const logUniform = (rng: Rng, from: number, to: number): number => from * (to / from) ** rng.float();
const SEVERAL: StageOptions = { relays: 3, natsServers: 1, channels: 16 };
const PAIR: StageOptions = { relays: 2, natsServers: 1, channels: 16, mayEnd: true };
const ALONE: StageOptions = { relays: 1, natsServers: 0, channels: 16 };
const LARGE: StageOptions = { ...ALONE, channels: 32 };

export const KINDS: readonly Kind[] = [
  { name: "edge", what: "kill -9 of a relay that does not lead", act: killEdge, stage: SEVERAL },
  { name: "leader", what: "kill -9 of the relay that leads", act: killLeader, stage: SEVERAL },
  { name: "rolling", what: "SIGTERM and a new start of every relay in turn", act: restartAll, stage: SEVERAL },
  {
    name: "nats",
    what: "kill -9 of one of three NATS servers",
    act: killNats,
    stage: { ...PAIR, natsServers: 3 },
  },
  { name: "alone", what: "kill -9 of a relay with the embedded store", act: killAlone, stage: ALONE },
  {
    name: "suspended",
    what: "the leader stands still for 1 to 5 s",
    act: suspend,
    stage: PAIR,
  },
  {
    name: "cut-off",
    what: "the leader is cut off from NATS for 0.5 to 5.5 s",
    act: cutOff,
    stage: PAIR,
  },
  {
    name: "loss",
    what: "0.1 to 1 % of packets and segments are lost",
    act: weather((rng) => ({ delayMs: 5, lossShare: logUniform(rng, 0.001, 0.01) })),
    stage: LARGE,
  },
  {
    name: "delay",
    what: "20 to 100 ms each way",
    act: weather((rng) => ({ delayMs: 20 + 80 * rng.float() })),
    stage: LARGE,
  },
  {
    name: "reordering",
    what: "1 to 10 % of packets come 5 to 50 ms late",
    act: weather((rng) => ({
      delayMs: 5,
      reorderShare: logUniform(rng, 0.01, 0.1),
      reorderMs: logUniform(rng, 5, 50),
    })),
    stage: LARGE,
  },
  { name: "partition", what: "contributors reach nobody, 0.2 to 20 s", act: partition, stage: LARGE },
  { name: "half-open", what: "connections end, one end or both not knowing", act: halfOpen, stage: LARGE },
].map((kind) => ({ count: 100, members: 6, ...kind }));

function pick<T>(values: readonly T[], rng: Rng): T {
  return values[rng.below(values.length)] as T;
}

function sleep(ms: number): Promise<void> {
  return new Promise((settle) => setTimeout(settle, ms));
}

/** As Promise.all, but every failure of one that is waited for later is known. */
async function all(...tasks: readonly Promise<unknown>[]): Promise<void> {
  await Promise.all(tasks);
}
