/**
 * What each network holds of something that a relay has only so much of. This machine's own connections have no prefix
 * (`prefix.ts`) and are not counted. Sessions have a count of their own, with room kept for members (`coordinator/gate.ts`).
 */
import { createCounts } from "../base/counts.ts";

export interface Shares {
  /** Counts one more; false, and nothing is counted, where the prefix has its share already. */
  take(prefix: string | null): boolean;
  /** Gives back what was taken. */
  leave(prefix: string | null): void;
}

export interface SharesOptions {
  readonly max: number;
  /** Of `max`, what one prefix may have: 0 … 1. */
  readonly share: number;
  /** That one prefix may have however small its share is. */
  readonly least?: number;
}

export function createShares({ max, share, least = 1 }: SharesOptions): Shares {
  const prefixMax = Math.max(least, Math.floor(max * share));
  const held = createCounts();
  return {
    take: (prefix) => {
      const hasRoom = held.of(prefix) < prefixMax;
      if (hasRoom) {
        held.add(prefix);
      }
      return hasRoom;
    },
    leave: held.remove,
  };
}
