/**
 * The good neighbour's control law: how long one submit to the GPU may be and how long the device rests after it. It learns
 * what each dispatch of a Plan costs by timing submits (a doubling probe at first, then continuously), cuts runs so that a
 * submit fills a slice of time, and owes a rest for every slice worked, so that the device works the share of the time that
 * the slider says. While the page is seen, its frame gaps ease both off further, and let them recover.
 *
 * Rests are a debt: what a timer slept too long is taken off the next ones, so that hidden tabs, whose timers browsers
 * stretch to a second, work their share too. Nothing here polls, and the clock is an argument.
 */
import { sleep, type Clock } from "../base/clock.ts";
import type { StopSignal } from "../base/stop.ts";
import type { Pace, PlanPace } from "../tensor/engine.ts";

/** No submit is meant to take longer; operating systems reset a GPU that does not answer for two seconds. */
export const SUBMIT_MS_MAX = 200;
/** Slices at full power: while the page is seen one frame's time, else a few, still far below what a person waits for. */
const SEEN_SLICE_MS = 16;
const UNSEEN_SLICE_MS = 50;
const SLICE_MS_MIN = 2;
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
/** Share of the way that a cost moves towards a smaller measurement; towards a larger one it goes at once. */
const COST_DOWN = 0.5;

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
  let countedMs = 0;
  let working = 0;
  let until: WorkUntil = {};
  /** Whether anything was worked since the last reading of frames: else their gaps are not this program's doing. */
  let worked = false;
  let [submits, submitMsMax] = [0, 0];
  /** When the device was last known to have finished something. */
  let idleMs = Number.NEGATIVE_INFINITY;
  const power = (): number => Math.min(1, Math.max(DUTY_MIN, duty()));
  /** Who asks for full power gets it: the words beside the slider say what it costs. A page that is not seen cannot jerk. */
  const share = (): number => (power() === 1 || seen === false ? power() : power() * ease);
  const sliceMs = (): number => Math.max(SLICE_MS_MIN, (seen === true ? SEEN_SLICE_MS : UNSEEN_SLICE_MS) * share());

  const owe = (workedMs: number): void => {
    if (working === 0) {
      return;
    }
    worked = true;
    debtMs = Math.min(DEBT_MS_MAX, debtMs + (workedMs * (1 - share())) / share());
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
  /** Notes a finished submit; returns how long the device was at it. */
  const finish = (startMs: number): number => {
    const nowMs = clock.nowMs();
    const busyMs = nowMs - Math.max(startMs, idleMs);
    idleMs = nowMs;
    submits += 1;
    submitMsMax = Math.max(submitMsMax, busyMs);
    countedMs += busyMs;
    owe(busyMs);
    return busyMs;
  };

  return {
    plan: (count) => pacePlan(count, { clock, sliceMs, finish, rest, overlap: () => share() === 1 }),
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
      const [startMs, countedBefore] = [clock.nowMs(), countedMs];
      working += 1;
      try {
        const value = await run();
        if (countedMs === countedBefore) {
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
  readonly clock: Clock;
  readonly sliceMs: () => number;
  readonly finish: (startMs: number) => number;
  readonly rest: () => Promise<void>;
  readonly overlap: () => boolean;
}

/** Costs of one Plan's dispatches and where its runs are cut. */
function pacePlan(count: number, { clock, sliceMs, finish, rest, overlap }: Law): PlanPace {
  /** Milliseconds of each dispatch; NaN before the first measurement. */
  const costs = new Float64Array(count).fill(Number.NaN);
  /** Dispatches that the next submit of unknown ones may hold. */
  let probe = 1;
  const flights: Promise<void>[] = [];

  const until = (from: number): number => {
    let to = from + 1;
    if (Number.isNaN(costs[from])) {
      while (to < count && to - from < probe && Number.isNaN(costs[to])) {
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
      costs.fill(tookMs / (to - from), from, to);
      probe = tookMs < sliceMs() / 2 ? probe * 2 : Math.max(1, Math.floor(probe / 2));
      return;
    }
    const expectedMs = Math.max(
      1e-3,
      costs.subarray(from, to).reduce((sum, ms) => sum + ms, 0),
    );
    const ratio = Math.max(1e-3, tookMs) / expectedMs;
    const factor = ratio >= 1 ? ratio : 1 - COST_DOWN * (1 - ratio);
    for (let i = from; i < to; i += 1) {
      costs[i] = (costs[i] as number) * factor;
    }
  };
  return {
    until,
    submitted: async (from, to, done) => {
      const startMs = clock.nowMs();
      const flight = done.then(() => learn(from, to, finish(startMs)));
      flight.catch(() => undefined); // whoever awaits it next sees the failure
      flights.push(flight);
      while (flights.length >= (overlap() ? IN_FLIGHT_MAX : 1)) {
        await flights.shift();
      }
      await rest();
    },
  };
}
