/**
 * The good neighbour's control law: how long one submit to the GPU may be and how long the device rests after it. It learns
 * what each dispatch of a Plan costs by timing submits (a doubling probe at first, of no more operations than one dispatch may have,
 * then continuously), cuts runs so that a submit fills a slice of time, and owes a rest for every slice worked, so that the
 * device works the share of the time that the slider says. While the page is seen, its frame gaps ease both off further, and let them recover.
 *
 * The end of a submit is heard of late: 0.5 ms in some browsers, 2 to 15 in others, 100 where promises wait for a timer. That
 * fence is measured by submits of nothing. It is no work: it is taken off what dispatches cost, and the device rests meanwhile.
 *
 * Rests are a debt: what a timer slept too long is taken off the next ones, so that hidden tabs, whose timers browsers
 * stretch to a second, work their share too. Nothing here polls, and the clock is an argument.
 */
import { sleep, type Clock } from "../base/clock.ts";
import type { StopSignal } from "../base/stop.ts";
import { DISPATCH_FLOPS_MAX } from "../gpu/dispatch.ts";
import type { Pace, PlanPace } from "../tensor/engine.ts";

/** No submit is meant to take longer; operating systems reset a GPU that does not answer for two seconds. */
export const SUBMIT_MS_MAX = 200;
/** Slices at full power: while the page is seen one frame's time, else a few, still far below what a person waits for. */
const SEEN_SLICE_MS = 16;
const UNSEEN_SLICE_MS = 50;
const SLICE_MS_MIN = 2;
/** A slice is so many fences long that the rest owed for it covers one, but no more than this; see `sliceMs`. */
const SLICE_FENCES_MAX = 4;
/** A fence is never taken for shorter: clocks tell whole milliseconds. */
const FENCE_MS_MIN = 0.25;
/** It is the shortest of so many submits of nothing, as whatever else uses the GPU only ever adds to one; measured so often. */
const FENCE_SAMPLES = 5;
const FENCE_EVERY_MS = 20_000;
/** One of more than a frame may be somebody else's work: so often one more sample, which counts at once if it is shorter. */
const FENCE_MS_DOUBTED = 17;
const FENCE_AGAIN_MS = 2_000;
/** A debt below this is not worth a timer; in hidden tabs timers are slow, so that rests are fewer and longer. */
const REST_MS_MIN = 2;
const HIDDEN_REST_MS_MIN = 200;
/** The most rest that is owed, or slept ahead: a machine that was suspended must not sleep as long again. */
const DEBT_MS_MAX = 10_000;
const CREDIT_MS_MAX = 2_000;
/** Submits under way at full power, so that the device need not wait for the host. */
const IN_FLIGHT_MAX = 2;

const DUTY_MIN = 0.05;
/** An animation whose frames come 20 ms apart at the 95th percentile still looks smooth; a little is kept in hand. */
const FRAME_GAP_MS = 19;
/** Where even the quietest frames came further apart, they may be this much slower than those. */
const GAP_ROOM = 1.1;
/** Gaps below this share of what they may be let the work recover. */
const GAP_EASY = 0.95;
const EASE_DOWN = 0.7;
const EASE_UP = 1.15;
const EASE_MIN = 0.1;
/**
 * Share of the way that a cost moves towards a measurement that is smaller, or larger by no more than clocks of whole milliseconds and
 * half a fence account for; towards a larger one it goes at once.
 */
const COST_STEP = 0.5;
const CLOCK_MS = 1;
/** What took no time that can be told may yet take some the next time. */
const COST_MS_MIN = 1e-4;

export interface Neighbour extends Pace {
  /** 95th percentile of the page's frame gaps over the last second or so; null while the page is not seen. */
  setFrames(gapMs: number | null): void;
  /**
   * Runs a piece of work and rests after it, as far as the engine has not rested within it. What is computed outside of it, such
   * as a self-test or a measurement of speed, is cut into submits, but rests are not owed for it.
   */
  work<T>(run: () => Promise<T>, until?: WorkUntil): Promise<T>;
  state(): PaceState;
}

/** Until when rests are taken; what is owed then is rested by the next work. */
export interface WorkUntil {
  /** Once it is aborted there are no more rests, and one under way ends. */
  readonly signal?: StopSignal;
  /** By the pace's clock: no rest goes on past it, so that what was made in time is handed in, in time. */
  readonly deadlineMs?: number;
}

export interface PaceState {
  readonly sliceMs: number;
  /** The slider's share, eased off. */
  readonly share: number;
  /** The longest submit so far. */
  readonly submitMsMax: number;
  readonly submits: number;
}

export interface PaceOptions {
  readonly clock: Clock;
  /** Share of the time to work, 0.05 … 1; asked before each slice. */
  readonly duty: () => number;
}

export function createPace({ clock, duty }: PaceOptions): Neighbour {
  /** Undefined where nobody tells: a program without a page. */
  let seen: boolean | undefined;
  let ease = 1;
  let quietestMs = Number.POSITIVE_INFINITY;
  let debtMs = 0;
  let working = 0;
  let until: WorkUntil = {};
  /** Whether anything was worked since the last reading of frames: else their gaps are not this program's doing. */
  let worked = false;
  let [submits, submitMsMax] = [0, 0];
  /** When the device finished what it was last known to have finished. */
  let idleMs = Number.NEGATIVE_INFINITY;
  /** Submits that it is not known to be through with. */
  let flying = 0;
  /** From the end of a submit to the host's hearing of it. */
  let fenceMs = FENCE_MS_MIN;
  const fences: number[] = [];
  let fenceDueMs = Number.NEGATIVE_INFINITY;
  const power = (): number => Math.min(1, Math.max(DUTY_MIN, duty()));
  /** Who asks for full power gets it: the words beside the slider say what it costs. A page that is not seen cannot jerk. */
  const share = (): number => (power() === 1 || seen === false ? power() : power() * ease);
  /**
   * A slice is at least as long as a fence, or what the fence is too long or too short by would decide alone how much fits; and
   * no longer for its sake than half of what a submit may take, as a timer's fence may be as late again.
   */
  const sliceMs = (): number => {
    const wantedMs = (seen === true ? SEEN_SLICE_MS : UNSEEN_SLICE_MS) * share();
    const fences = Math.min(SLICE_FENCES_MAX, Math.max(1, share() / (1 - share())));
    return Math.max(SLICE_MS_MIN, wantedMs, Math.min(fences * fenceMs, SUBMIT_MS_MAX / 2));
  };

  const owe = (workedMs: number, restedMs = 0): void => {
    if (working === 0) {
      return;
    }
    worked = true;
    debtMs = Math.min(DEBT_MS_MAX, debtMs + Math.max(0, (workedMs * (1 - share())) / share() - restedMs));
  };
  const rest = async (): Promise<void> => {
    const { signal, deadlineMs = Number.POSITIVE_INFINITY } = until;
    const over = signal?.aborted === true || signal?.ended === true;
    if (debtMs < (seen === false ? HIDDEN_REST_MS_MIN : REST_MS_MIN) || over) {
      return;
    }
    const startMs = clock.nowMs();
    if (startMs >= deadlineMs) {
      return;
    }
    await sleep(clock, Math.min(debtMs, deadlineMs - startMs), signal);
    const sleptMs = clock.nowMs() - startMs;
    debtMs = Math.max(-CREDIT_MS_MAX, debtMs - sleptMs);
  };
  const measureFence = async (done: Promise<void>): Promise<void> => {
    const startMs = clock.nowMs();
    await done;
    const nowMs = clock.nowMs();
    fences.push(nowMs - startMs);
    const full = fences.length === FENCE_SAMPLES;
    const shortestMs = Math.min(...fences);
    fenceMs = Math.max(FENCE_MS_MIN, full ? shortestMs : Math.min(fenceMs, shortestMs));
    if (full) {
      fences.length = 0;
    }
    if (fenceMs > FENCE_MS_DOUBTED) {
      fenceDueMs = nowMs + FENCE_AGAIN_MS;
    } else if (full) {
      fenceDueMs = nowMs + FENCE_EVERY_MS;
    }
  };
  /** Waits for a submit; resolves to how long the device was at it. */
  const finish = async (done: Promise<void>): Promise<number> => {
    const startMs = clock.nowMs();
    const alone = flying === 0;
    flying += 1;
    try {
      await done;
    } finally {
      flying -= 1;
    }
    const nowMs = clock.nowMs();
    if (alone) {
      // Fences differ, but this one was within what the submit took.
      fenceMs = Math.max(FENCE_MS_MIN, Math.min(fenceMs, 2 * (nowMs - startMs)));
    }
    // One that waited for another began when that one ended.
    const endMs = nowMs - fenceMs;
    const workedMs = Math.max(0, endMs - Math.max(startMs, idleMs));
    idleMs = endMs;
    submits += 1;
    submitMsMax = Math.max(submitMsMax, workedMs);
    owe(workedMs, alone ? fenceMs : 0);
    return workedMs;
  };
  const noiseMs = (): number => CLOCK_MS + fenceMs / 2;
  const isFenceDue = (): boolean => flying === 0 && clock.nowMs() >= fenceDueMs;

  return {
    plan: (flops) =>
      pacePlan(flops, { sliceMs, noiseMs, isFenceDue, measureFence, finish, rest, overlap: () => share() === 1 }),
    setFrames: (gapMs) => {
      seen = gapMs !== null;
      if (gapMs === null || !(gapMs > 0)) {
        return;
      }
      quietestMs = Math.min(quietestMs, gapMs);
      const boundMs = Math.max(FRAME_GAP_MS, quietestMs * GAP_ROOM);
      if (gapMs > boundMs && worked) {
        ease = Math.max(EASE_MIN, ease * EASE_DOWN);
      } else if (gapMs < boundMs * GAP_EASY) {
        ease = Math.min(1, ease * EASE_UP);
      }
      worked = false;
    },
    work: async (run, limits = {}) => {
      until = limits;
      const [startMs, submitsBefore] = [clock.nowMs(), submits];
      working += 1;
      try {
        const value = await run();
        if (submits === submitsBefore) {
          owe(clock.nowMs() - startMs);
        }
        await rest();
        return value;
      } finally {
        working -= 1;
      }
    },
    state: () => ({ sliceMs: sliceMs(), share: share(), submitMsMax, submits }),
  };
}

interface Law {
  readonly sliceMs: () => number;
  /** By how much a submit may seem longer than it is. */
  readonly noiseMs: () => number;
  readonly isFenceDue: () => boolean;
  readonly measureFence: (done: Promise<void>) => Promise<void>;
  readonly finish: (done: Promise<void>) => Promise<number>;
  readonly rest: () => Promise<void>;
  readonly overlap: () => boolean;
}

/** Costs of one Plan's dispatches and where its runs are cut. */
function pacePlan(
  flops: readonly number[],
  { sliceMs, noiseMs, isFenceDue, measureFence, finish, rest, overlap }: Law,
): PlanPace {
  const count = flops.length;
  /** Milliseconds of each dispatch; NaN before the first measurement. */
  const costs = new Float64Array(count).fill(Number.NaN);
  /** Dispatches that the next submit of unknown ones may hold. */
  let probe = 1;
  const flights: Promise<void>[] = [];
  const flopsAt = (dispatch: number): number => flops[dispatch] as number;

  const until = (from: number): number => {
    if (isFenceDue()) {
      return from;
    }
    let to = from + 1;
    if (Number.isNaN(costs[from])) {
      // After many that are quick there may be as many that are not.
      let sum = flopsAt(from);
      while (to < count && to - from < probe && Number.isNaN(costs[to]) && sum + flopsAt(to) <= DISPATCH_FLOPS_MAX) {
        sum += flopsAt(to);
        to += 1;
      }
      return to;
    }
    const limitMs = sliceMs();
    let sumMs = costs[from] as number;
    while (to < count && sumMs + (costs[to] as number) <= limitMs) {
      sumMs += costs[to] as number;
      to += 1;
    }
    return to;
  };
  const learn = (from: number, to: number, tookMs: number): void => {
    if (Number.isNaN(costs[from])) {
      costs.fill(Math.max(COST_MS_MIN, tookMs / (to - from)), from, to);
      probe = tookMs < sliceMs() / 2 ? probe * 2 : Math.max(1, Math.floor(probe / 2));
      return;
    }
    const expectedMs = costs.subarray(from, to).reduce((sum, ms) => sum + ms, 0);
    const isSlower = tookMs > expectedMs + noiseMs();
    const factor = 1 + (isSlower ? 1 : COST_STEP) * (tookMs / expectedMs - 1);
    for (let i = from; i < to; i += 1) {
      costs[i] = Math.max(COST_MS_MIN, (costs[i] as number) * factor);
    }
  };
  return {
    until,
    submitted: async (from, to, done) => {
      if (from === to) {
        return measureFence(done);
      }
      const flight = finish(done).then((tookMs) => learn(from, to, tookMs));
      flight.catch(() => undefined); // whoever awaits it next sees the failure
      flights.push(flight);
      while (flights.length >= (overlap() ? IN_FLIGHT_MAX : 1)) {
        await flights.shift();
      }
      await rest();
    },
  };
}
