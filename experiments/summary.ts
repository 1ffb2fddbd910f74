/** What the runs of an experiment say together: means and deviations over seeds, and each arm beside the reference. */
import type { Arm, Experiment } from "./experiment.ts";
import type { Point, RunRecord } from "./record.ts";
import { roundBytes } from "./wire.ts";

export interface Spread {
  readonly mean: number;
  /** Standard deviation of the sample; 0 for one value. */
  readonly deviation: number;
}

export interface ArmSummary {
  readonly arm: Arm;
  readonly seeds: number;
  readonly loss: Spread;
  readonly losses: Readonly<Record<string, Spread>>;
  /** (loss − reference's) / reference's, seed by seed; null for the reference itself and where no seed has both. */
  readonly against: Spread | null;
  /** Whether that compares at equal tokens; otherwise both at their end. */
  readonly equalTokens: boolean;
  readonly tokens: number;
  readonly timeMs: number;
  /** Bytes of a contributor, without what is sent once, and that. */
  readonly up: number;
  readonly down: number;
  readonly joining: number;
  /** Of `up` and `down`, what validators fetch of others' contributions. */
  readonly judging: number;
  /** How many times more dense f32 data parallel training would send for the same steps; null where nothing is sent. */
  readonly fewerUp: number | null;
  readonly fewerDown: number | null;
  readonly accepted: number;
  readonly refused: number;
  readonly vanished: number;
  readonly idleShare: number;
  readonly replicasCompared: number;
}

/**
 * Runs whose tokens differ by more than this are compared at their ends: the reference, read before its end, would be at a
 * learning rate that has not fallen yet.
 */
const TOKENS_SHARE = 0.02;

export function summarise({ reference, arms }: Experiment, records: readonly RunRecord[]): ArmSummary[] {
  const of = (name: string): RunRecord[] => records.filter(({ arm }) => arm.name === name);
  return arms.flatMap((arm) => {
    const runs = of(arm.name);
    return runs.length === 0 ? [] : [summariseArm(arm, runs, of(reference))];
  });
}

function summariseArm(arm: Arm, runs: readonly RunRecord[], references: readonly RunRecord[]): ArmSummary {
  const ends = runs.map(lastPoint);
  const mean = (value: (point: Point) => number): number => spreadOf(ends.map(value)).mean;
  const sum = (value: (run: RunRecord) => number): number => runs.reduce((all, run) => all + value(run), 0);
  const pairs = runs.flatMap((run) => {
    const other = references.find(({ seed }) => seed === run.seed);
    return other === undefined || other.arm.name === arm.name ? [] : [{ run, other }];
  });
  const equalTokens = pairs.every(({ run, other }) => areClose(lastPoint(run).tokens, lastPoint(other).tokens));
  const against = pairs.map(({ run, other }) => {
    const tokens = equalTokens ? Math.min(lastPoint(run).tokens, lastPoint(other).tokens) : Infinity;
    const theirs = lossAt(other.points, tokens);
    return (lossAt(run.points, tokens) - theirs) / theirs;
  });
  const tokens = mean((point) => point.tokens);
  const { inner, model } = arm.charter;
  const steps = tokens / (arm.contributors * inner.batch * model.time);
  const dense = 4 * (runs[0]?.parameters ?? 0) * steps;
  const [up, down] = [mean((point) => roundBytes(point.up)), mean((point) => roundBytes(point.down))];
  const sources = Object.keys(ends[0]?.losses ?? {});
  return {
    arm,
    seeds: runs.length,
    loss: spreadOf(ends.map(({ loss }) => loss)),
    losses: Object.fromEntries(sources.map((name) => [name, spreadOf(ends.map(({ losses }) => losses[name] ?? NaN))])),
    against: against.length === 0 ? null : spreadOf(against),
    equalTokens,
    tokens,
    timeMs: mean((point) => point.timeMs),
    up,
    down,
    joining: mean((point) => point.down.joining),
    judging: mean((point) => point.up.judging + point.down.judging),
    fewerUp: up === 0 ? null : dense / up,
    fewerDown: down === 0 ? null : dense / down,
    accepted: sum(({ sums }) => sums.accepted),
    refused: sum(({ sums }) => Object.values(sums.refused).reduce((all, count) => all + count, 0)),
    vanished: sum(({ sums }) => sums.vanished),
    idleShare: sum(({ sums }) => sums.idleShare) / runs.length,
    replicasCompared: sum(({ sums }) => sums.replicasCompared),
  };
}

function areClose(a: number, b: number): boolean {
  return Math.abs(a - b) <= TOKENS_SHARE * Math.max(a, b);
}

function lastPoint({ points }: RunRecord): Point {
  return points[points.length - 1] as Point;
}

/** The loss when `tokens` had been trained on, on the straight line between two versions; at the end for more. */
export function lossAt(points: readonly Point[], tokens: number): number {
  const after = points.findIndex((point) => point.tokens >= tokens);
  const [a, b] = [points[after - 1], points[after]];
  if (a === undefined || b === undefined) {
    return (b ?? (points[points.length - 1] as Point)).loss;
  }
  const share = (tokens - a.tokens) / (b.tokens - a.tokens);
  return a.loss + share * (b.loss - a.loss);
}

export function spreadOf(values: readonly number[]): Spread {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: values.length < 2 ? 0 : Math.sqrt(squares / (values.length - 1)) };
}
