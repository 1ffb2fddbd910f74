/** How far the runs are, on standard error: one line that changes on a terminal, now and then a line elsewhere. */
import { timeText } from "./units.ts";

export interface Progress {
  /** Share of a run that is done, 0 … 1, and what to say of it. */
  note(run: string, share: number, news: string): void;
  end(): void;
}

export interface ProgressOptions {
  /** Runs and what they weigh. */
  readonly weights: ReadonlyMap<string, number>;
  readonly nowMs: () => number;
  readonly write: (text: string) => void;
  /** Width of a terminal, whose line is written over; null where lines stay. */
  readonly columns: () => number | null;
}

const BAR_CELLS = 30;
/** Without a terminal a line is written when so much more is done. */
const STEP_SHARE = 0.05;

export function createProgress({ weights, nowMs, write, columns }: ProgressOptions): Progress {
  const shares = new Map<string, number>();
  const whole = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
  const beganMs = nowMs();
  /** Done when this process began: it took no time now. */
  let [before, told] = [0, 0];
  let width = 0;
  const done = (): number =>
    whole === 0 ? 1 : [...shares].reduce((sum, [run, share]) => sum + share * (weights.get(run) ?? 0), 0) / whole;
  return {
    note: (run, share, news) => {
      const first = !shares.has(run);
      shares.set(run, share);
      if (first && share === 1) {
        before = done();
      }
      const now = done();
      const gained = now - before;
      const leftMs = gained > 0.005 ? ((nowMs() - beganMs) * (1 - now)) / gained : null;
      const cells = Math.round(now * BAR_CELLS);
      const finished = [...shares.values()].filter((one) => one === 1).length;
      const line = [
        `[${"█".repeat(cells)}${"·".repeat(BAR_CELLS - cells)}] ${String(Math.floor(100 * now)).padStart(3)} %`,
        `${finished} of ${weights.size} runs`,
        `${run}: ${news}`,
        ...(leftMs === null || now === 1 ? [] : [`about ${timeText(leftMs)} left`]),
      ].join("  ");
      const wide = columns();
      if (wide !== null) {
        const shown = line.slice(0, wide - 1); // a longer one would wrap, and could not be written over
        write(`\r${shown.padEnd(Math.min(width, wide - 1))}`);
        width = shown.length;
      } else if (share === 1 || now >= told + STEP_SHARE) {
        told = now;
        write(`${line}\n`);
      }
    },
    end: () => {
      if (columns() !== null) {
        write("\n");
      }
    },
  };
}
