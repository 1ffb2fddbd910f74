/**
 * A surge on one relay process: sessions that play rounds, as in `pairs.ts`, and then many times as many who come within a minute. Each
 * does what it is told and plays as soon as it is welcomed. Everybody must be served, or told when to come back where all sessions are
 * taken, and what was told of results must be what the ledger holds and what was merged.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { HeddleError } from "../../src/base/assert.ts";
import { RETRY_MS_MAX } from "../../src/coordinator/tickets.ts";
import { SESSIONS_MAX } from "../../src/protocol/limits.ts";
import { checkServed, reportOf } from "./arrivals.ts";
import { startGame, type Game, type GameOptions, type Stretch } from "./game.ts";
import { rounded, spreadOf, type Outcome } from "./outcome.ts";

export interface SurgeOptions extends GameOptions {
  /** Before the surge. */
  readonly sessions: number;
  /** How many times as many there are in all, with those who come. */
  readonly times: number;
  /** In which they come, evenly spread. */
  readonly joinSeconds: number;
  /** What is measured before the surge, and after everybody was answered. */
  readonly seconds: number;
}

/** Who was told to come back after the longest wait there is, and came as late as anybody does, has had time to come in. */
const PATIENCE_MS = 1.5 * RETRY_MS_MAX + 60_000;

export async function measureSurge(options: SurgeOptions, say: (sentence: string) => void): Promise<Outcome> {
  const { sessions, times, joinSeconds, seconds, drivers } = options;
  const comers = sessions * (times - 1);
  const room = SESSIONS_MAX - sessions;
  await using game = await startGame(options);
  say(`Opening ${sessions} sessions, which play for ${seconds} s after a few to warm up …`);
  await game.open(sessions);
  await game.begin();
  const before = await game.during(() => sleep(1_000 * seconds));
  say(`${comers} come within ${joinSeconds} s …`);
  const during = await game.during(async () => {
    await game.join(comers, 1_000 * joinSeconds);
    await untilAnswered(game, { comers, room, endMs: performance.now() + 1_000 * joinSeconds + PATIENCE_MS });
  });
  checkServed(
    during.seen.flatMap(({ arrivals }) => arrivals),
    room,
  );
  say(`Everybody was served or told when to come back; playing for ${seconds} s …`);
  const after = await game.during(() => sleep(1_000 * seconds));
  const { served } = await game.count();
  const connected = await game.connected();
  if (connected !== sessions + served) {
    throw new HeddleError("unreachable", `Of ${sessions + served} who were welcomed ${connected} have a session`);
  }
  say("Letting the last round end, and comparing what was told with the ledger …");
  const { seen, ledger } = await game.finish();
  return {
    sessions,
    times,
    joinSeconds,
    drivers,
    before: figuresOf(before),
    during: figuresOf(during),
    after: figuresOf(after),
    ...reportOf(seen.flatMap((one) => one.arrivals)),
    refusedResults: seen.reduce((sum, one) => sum + one.told.refused.length, 0),
    toldAndInLedger: ledger.accepted.size,
  };
}

/** Waits until everybody was answered: served, or told when to come back where there is no room left. Returns at `endMs` in any case. */
async function untilAnswered(
  game: Game,
  { comers, room, endMs }: { readonly comers: number; readonly room: number; readonly endMs: number },
): Promise<void> {
  for (; performance.now() < endMs; await sleep(500)) {
    const { served, unanswered } = await game.count();
    if (unanswered === 0 && served >= Math.min(comers, room)) {
      return;
    }
  }
}

function figuresOf({ seconds, seen, after, gained }: Stretch): Readonly<Record<string, number>> {
  const pairs = gained("heddle_contributions_total", 'verdict="accepted"');
  const receiptsMs = seen.flatMap(({ waits }) => waits.taken);
  const { p50 = 0, p99 = 0 } = spreadOf(receiptsMs);
  return {
    seconds: rounded(seconds, 1),
    pairsPerS: rounded(pairs / seconds, 1),
    receiptsPerS: rounded(receiptsMs.length / seconds, 1),
    receiptP50Ms: p50,
    receiptP99Ms: p99,
    eventLoopP99Ms: rounded(1_000 * after("nodejs_eventloop_lag_p99_seconds"), 1),
    relayBusyPercent: rounded((100 * gained("process_cpu_seconds_total")) / seconds, 0),
    residentMB: rounded(after("process_resident_memory_bytes") / 1e6, 1),
  };
}
