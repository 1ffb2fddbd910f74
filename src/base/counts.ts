/** How many of something there are of each key. Null stands for what is not counted: it is always 0. */
export interface Counts {
  of(key: string | null): number;
  add(key: string | null): void;
  /** Takes back what was added. */
  remove(key: string | null): void;
  /** Keys of which there are any. */
  readonly size: number;
}

export function createCounts(): Counts {
  const counts = new Map<string, number>();
  const of = (key: string | null): number => (key === null ? 0 : (counts.get(key) ?? 0));
  return {
    of,
    add: (key) => {
      if (key !== null) {
        counts.set(key, of(key) + 1);
      }
    },
    remove: (key) => {
      const left = of(key) - 1;
      if (key !== null && left > 0) {
        counts.set(key, left);
      } else if (key !== null) {
        counts.delete(key);
      }
    },
    get size() {
      return counts.size;
    },
  };
}
