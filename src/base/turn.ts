/** Work that must not overlap: each piece begins when the one before it has ended, in the order in which they were asked for. */

/** Runs `work` when its turn comes; resolves or rejects as it does. A piece that fails holds up none of the next. */
export type InTurn = <T>(work: () => Promise<T>) => Promise<T>;

export function createTurn(): InTurn {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const mine = last.then(work);
    last = mine.catch(() => undefined);
    return mine;
  };
}

/** For who shares nothing: every piece at once. */
export const atOnce: InTurn = (work) => work();
