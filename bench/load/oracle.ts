/** The oracle of all loads that play rounds: what clients were told must be what the ledger holds and what was merged. */
import { HeddleError } from "../../src/base/assert.ts";
import type { Told } from "./players.ts";
import type { LedgerSums } from "./relay-process.ts";

/** The ledger was checked by itself; here the clients' word is compared with it. Throws HeddleError "integrity" where they differ. */
export function compare(seen: readonly Told[], { contributed, accepted, merged }: LedgerSums): void {
  const told = (list: (one: Told) => readonly string[]): string => seen.flatMap(list).sort().join();
  const held = (ids: ReadonlySet<string>): string => [...ids].sort().join();
  const holds = (isRight: boolean, fault: string): void => {
    if (!isRight) {
      throw new HeddleError("integrity", `A result was lost: ${fault}`);
    }
  };
  holds(told(({ taken }) => taken) === held(contributed), "receipts that were told are not what the ledger holds");
  holds(told((one) => one.accepted) === held(accepted), "verdicts that were told are not what the ledger holds");
  holds(held(accepted) === held(merged), "what was accepted is not what was merged");
}
