/**
 * Pairs of assignment and result on one relay process: sessions over WebSocket from driver processes, of which each version's
 * round has as many as a round takes. A pair is a training assignment, a small signed update that is checked, stored and
 * entered, another session's signed report on it, and the verdict. What was told must be what the ledger holds and what was merged.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Seen } from "./drivers.ts";
import { startGame, type GameOptions } from "./game.ts";
import { rounded, spreadOf, type Outcome } from "./outcome.ts";

export interface PairsOptions extends GameOptions {
  readonly sessions: number;
  readonly seconds: number;
}

export async function measurePairs(options: PairsOptions, say: (sentence: string) => void): Promise<Outcome> {
  const { sessions, seconds, drivers, active } = options;
  await using game = await startGame(options);
  const empty = await game.metrics();
  say(`Opening ${sessions} sessions, at most 95 a second …`);
  const welcomesMs = await game.open(sessions);
  const full = await game.metrics();
  say(`Playing for ${seconds} s, after a few to warm up …`);
  await game.begin();
  const played = await game.during(() => sleep(1_000 * seconds));
  say("Letting the last round end, and comparing what was told with the ledger …");
  const { seen, ledger } = await game.finish();
  const waits = (name: keyof Seen["waits"]): Readonly<Record<string, number>> =>
    spreadOf(played.seen.flatMap((one) => one.waits[name]));
  const pairs = played.gained("heddle_contributions_total", 'verdict="accepted"');
  const processorS = played.gained("process_cpu_seconds_total");
  const resident = "process_resident_memory_bytes";
  return {
    sessions,
    activeInARound: Math.min(active, sessions),
    drivers,
    seconds: rounded(played.seconds, 1),
    pairs,
    pairsPerS: rounded(pairs / played.seconds, 1),
    rounds: played.gained("heddle_version"),
    welcomeMs: spreadOf(welcomesMs),
    assignmentMs: waits("assigned"),
    receiptMs: waits("taken"),
    reportToVerdictMs: waits("judged"),
    contributionToVerdictMs: waits("verdict"),
    contributionToNextAssignmentMs: waits("next"),
    relayProcessorS: rounded(processorS, 2),
    driversProcessorS: rounded(
      played.seen.reduce((sum, one) => sum + one.processorS, 0),
      2,
    ),
    relayProcessorMsPerPair: rounded((1_000 * processorS) / pairs, 2),
    ledgerWritesPerPair: rounded(played.gained("heddle_ledger_write_seconds_count") / pairs, 3),
    eventLoopP99Ms: rounded(1_000 * played.after("nodejs_eventloop_lag_p99_seconds"), 1),
    residentMBEmpty: rounded(empty(resident) / 1e6, 1),
    residentMBConnected: rounded(full(resident) / 1e6, 1),
    residentMBPlaying: rounded(played.after(resident) / 1e6, 1),
    residentKBPerSession: rounded((full(resident) - empty(resident)) / 1e3 / sessions, 1),
    refused: seen.reduce((sum, one) => sum + one.told.refused.length, 0),
    toldAndInLedger: ledger.accepted.size,
  };
}
