/** Those who come in a surge: what each was told, and whether anybody was turned away without a word or forgotten. */
import { HeddleError } from "../../src/base/assert.ts";
import { spreadOf, type Outcome } from "./outcome.ts";
import type { Away } from "./session.ts";

/** Changed until it is served. */
export interface Arrival {
  /** From its first dial to its welcome; null until then. */
  servedMs: number | null;
  /** Each time that it was told to come back. */
  readonly told: Extract<Away, { readonly type: "told" }>[];
  /** Why its links were lost that nothing was said on. */
  readonly lost: string[];
}

export interface Counted {
  /** Who was welcomed. */
  readonly served: number;
  /** Who was neither welcomed nor told when to come back. */
  readonly unanswered: number;
}

export function countOf(arrivals: readonly Arrival[]): Counted {
  const served = arrivals.filter(({ servedMs }) => servedMs !== null).length;
  const unanswered = arrivals.filter(({ servedMs, told }) => servedMs === null && told.length === 0).length;
  return { served, unanswered };
}

/**
 * Everybody must have been served or told when to come back, and as many served as there was `room` for. Throws HeddleError
 * "unreachable" with who was not.
 */
export function checkServed(arrivals: readonly Arrival[], room: number): void {
  const { served, unanswered } = countOf(arrivals);
  if (unanswered > 0) {
    const lost = arrivals.find(({ servedMs, told }) => servedMs === null && told.length === 0)?.lost ?? [];
    const links = `the first of them lost ${lost.length} links${lost.length === 0 ? "" : `, the last: ${lost.at(-1)}`}`;
    throw new HeddleError(
      "unreachable",
      `${unanswered} of ${arrivals.length} who came were neither served nor told when to come back; ${links}`,
    );
  }
  const missed = Math.min(room, arrivals.length) - served;
  if (missed > 0) {
    throw new HeddleError(
      "unreachable",
      `${missed} of ${arrivals.length} who came were told when to come back and not served, though there was room`,
    );
  }
}

/** How they fared, times in milliseconds. */
export function reportOf(arrivals: readonly Arrival[]): Outcome {
  const told = arrivals.flatMap((arrival) => arrival.told);
  const wasTold = arrivals.filter((arrival) => arrival.told.length > 0);
  const refusals: Record<string, number> = {};
  for (const { reason } of told) {
    refusals[reason] = (refusals[reason] ?? 0) + 1;
  }
  const waits = (some: readonly Arrival[]): Readonly<Record<string, number>> =>
    spreadOf(some.flatMap(({ servedMs }) => (servedMs === null ? [] : [servedMs])));
  return {
    came: arrivals.length,
    served: countOf(arrivals).served,
    toldWhenToComeBack: wasTold.length,
    toldAndNotServedYet: wasTold.filter(({ servedMs }) => servedMs === null).length,
    dialToWelcomeMs: waits(arrivals),
    dialToWelcomeOfThoseToldMs: waits(wasTold),
    toldToWaitMs: spreadOf(told.map(({ retryMs }) => retryMs)),
    timesTold: spreadOf(wasTold.map((arrival) => arrival.told.length)),
    refusals,
    linksLost: arrivals.reduce((sum, { lost }) => sum + lost.length, 0),
  };
}
