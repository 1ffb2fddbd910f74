/**
 * What the leader of a run says of itself on the bus, once in BEAT_MS and when something changes: who it is, and how far
 * its run has come. The rest an edge reads in the ledger.
 */
import type { Bytes } from "../base/bytes.ts";
import type { RunView } from "../protocol/run-view.ts";
import { publishIfThere, type Bus } from "../store/bus.ts";

export const BEAT_SUBJECT = "beat";
const BEAT_MS = 1_000;
/** Changes that come in a rush are told together. */
const BEAT_PAUSE_MS = 25;
const BEAT_BYTES_MAX = 2_000;

export interface Beat extends Pick<RunView, "round" | "phase" | "connected"> {
  readonly epoch: number;
  /** Names the process to people. */
  readonly leader: string;
  /** Of the shared base. */
  readonly version: number;
}

const PHASES: readonly RunView["phase"][] = ["gathering", "paused", "training", "judging", "merging"];

export interface Beats {
  /** Something has changed. */
  tell(): void;
  stop(): void;
}

/** Says what `beat` returns, at once and from now on. While the bus is away nothing is said. */
export function startBeats(bus: Bus, beat: () => Beat): Beats {
  let pause: NodeJS.Timeout | null = null;
  const say = (): void => {
    pause = null;
    publishIfThere(bus, BEAT_SUBJECT, encodeBeat(beat()));
  };
  const timer = setInterval(say, BEAT_MS);
  say();
  return {
    tell: () => {
      pause ??= setTimeout(say, BEAT_PAUSE_MS);
    },
    stop: () => {
      clearInterval(timer);
      clearTimeout(pause ?? undefined);
      pause = null;
    },
  };
}

export function encodeBeat({ epoch, leader, version, round, phase, connected }: Beat): Bytes {
  return new TextEncoder().encode(JSON.stringify({ epoch, leader, version, round, phase, connected }));
}

/** Null for what is no beat, as a relay of another version may send it. */
export function readBeat(bytes: Bytes): Beat | null {
  let beat: Partial<Record<keyof Beat, unknown>> | null;
  try {
    beat = bytes.length > BEAT_BYTES_MAX ? null : (JSON.parse(new TextDecoder().decode(bytes)) as Partial<Beat> | null);
  } catch {
    beat = null;
  }
  const { epoch, leader, version, round, phase, connected } = beat ?? {};
  const known = PHASES.find((one) => one === phase);
  if (!isCount(epoch) || !isCount(version) || !isCount(round) || !isCount(connected)) {
    return null;
  }
  return typeof leader !== "string" || known === undefined
    ? null
    : { epoch, leader, version, round, phase: known, connected };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
