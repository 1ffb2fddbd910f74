/**
 * A process of players (`players.ts`), told by its parent over IPC what to do: open sessions, play, and say what was seen. Its own
 * processor time is reported, because it shares the machine with the relay that is measured.
 */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { assert } from "../../src/base/assert.ts";
import type { RelayMessage, VersionInfo } from "../../src/protocol/messages.ts";
import type { RunView } from "../../src/protocol/run-view.ts";
import { openLine } from "../../test/fixtures/line.ts";
import { countOf, type Arrival } from "./arrivals.ts";
import { LOADS, type LoadName } from "./loads.ts";
import { Players, type Told, type Waits } from "./players.ts";
import { openSession, type Away, type Session } from "./session.ts";

/** What the parent says, each answered by one `Answer` when it is done. */
export type Order =
  | {
      readonly type: "open";
      readonly origin: string;
      readonly sessions: number;
      readonly active: number;
      readonly trainMs: number;
      readonly judgeMs: number;
      readonly load: LoadName;
    }
  | { readonly type: "begin" }
  /** More sessions come, spread over `withinMs`, and play as soon as they are welcomed. Answered at once. */
  | { readonly type: "join"; readonly sessions: number; readonly withinMs: number }
  /** How far those are. */
  | { readonly type: "count" }
  /** Forgets the waits and processor time so far. */
  | { readonly type: "mark" }
  | { readonly type: "look" }
  | { readonly type: "end" };

export type Answer =
  | { readonly type: "done"; readonly welcomesMs: readonly number[] }
  | {
      readonly type: "seen";
      readonly waits: Waits;
      readonly told: Told;
      /** Contributions whose verdict is still to be told. */
      readonly open: number;
      readonly processorS: number;
      readonly arrivals: readonly Arrival[];
    }
  | { readonly type: "counted"; readonly served: number; readonly unanswered: number }
  | { readonly type: "fault"; readonly sentence: string };

const DIALS_AT_ONCE = 20;
/** Below what a relay lets in, so that few are told to come back. */
const DIALS_PER_S = 95;

let origin = "";
let players: Players | null = null;
let head: VersionInfo | null = null;
let markedS = 0;
const arrivals: Arrival[] = [];

function answer(said: Answer): void {
  process.send?.(said);
}

function fault(sentence: unknown): void {
  answer({ type: "fault", sentence: String(sentence) });
}

function processorS(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function open(order: Extract<Order, { readonly type: "open" }>): Promise<readonly number[]> {
  const { sessions, load, ...pace } = order;
  const { weather, fetchesUpdates } = LOADS[load];
  ({ origin } = order);
  if (weather !== null) {
    const line = await openLine({ ports: () => [Number(new URL(order.origin).port)] });
    line.set(weather);
    ({ origin } = line);
  }
  const view = (await (await fetch(`${origin}/api/run`)).json()) as RunView;
  const { run, charter, parameters } = view;
  const made = new Players({ charter, parameters, run, fetchesUpdates, fault, ...pace, origin });
  players = made;
  const welcomesMs: number[] = [];
  const beginMs = performance.now();
  let begun = 0;
  const openOnes = async (): Promise<void> => {
    while (begun < sessions) {
      const number = begun;
      begun += 1;
      const earlyMs = beginMs + (1_000 * number) / DIALS_PER_S - performance.now();
      await sleep(Math.max(0, earlyMs));
      const session = await enter(made, number);
      head = session.head;
      welcomesMs.push(session.welcomeMs);
    }
  };
  await Promise.all(Array.from({ length: DIALS_AT_ONCE }, openOnes));
  return welcomesMs;
}

/** Opens the session of player `number`, after however many tries that takes. */
async function enter(made: Players, number: number, onAway?: (away: Away) => void): Promise<Session> {
  let take: (message: RelayMessage) => void = () => undefined;
  const onMessage = (message: RelayMessage): void => take(message);
  const heard = onAway === undefined ? {} : { onAway };
  const session = await openSession({ url: origin.replace("http", "ws"), onMessage, onLost: fault, ...heard });
  take = made.add(session, number);
  return session;
}

function join(made: Players, { sessions, withinMs }: Extract<Order, { readonly type: "join" }>): void {
  const first = made.count;
  const come = async (i: number): Promise<void> => {
    const arrival: Arrival = { servedMs: null, told: [], lost: [] };
    arrivals.push(arrival);
    await sleep((withinMs * i) / sessions);
    const beginMs = performance.now();
    await enter(made, first + i, (away) => {
      if (away.type === "told") {
        arrival.told.push(away);
      } else {
        arrival.lost.push(away.sentence);
      }
    });
    arrival.servedMs = performance.now() - beginMs;
  };
  for (let i = 0; i < sessions; i += 1) {
    come(i).catch(fault);
  }
}

async function obey(order: Order): Promise<void> {
  if (order.type === "open") {
    answer({ type: "done", welcomesMs: await open(order) });
    return;
  }
  assert(players !== null && head !== null, "Cannot play: no session is open");
  switch (order.type) {
    case "begin":
      players.begin(head);
      break;
    case "join":
      join(players, order);
      break;
    case "count":
      answer({ type: "counted", ...countOf(arrivals) });
      return;
    case "mark":
      players.forgetWaits();
      markedS = processorS();
      break;
    case "look":
      answer({
        type: "seen",
        waits: players.waits,
        told: players.told,
        open: players.open,
        processorS: processorS() - markedS,
        arrivals,
      });
      return;
    case "end":
      players.end();
      break;
    default:
      order satisfies never;
  }
  answer({ type: "done", welcomesMs: [] });
}

process.on("message", (order: Order) => void obey(order).catch(fault));
process.on("disconnect", () => process.exit(0));
