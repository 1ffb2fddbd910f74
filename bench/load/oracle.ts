/** The oracle of all loads that play rounds: what clients were told must be what the ledger holds and what was merged. */
import { assert, HeddleError } from "../../src/base/assert.ts";
import type { ContributionId } from "../../src/base/bytes.ts";
import type { RelayMessage } from "../../src/protocol/messages.ts";
import type { Told } from "./players.ts";
import type { LedgerSums } from "./relay-process.ts";

/**
 * The ledger was checked by itself; here the clients' word is compared with it. Throws HeddleError "integrity" where they differ, and a bug
 * where they would not if one contribution were missing, on either side: a run in which nothing was accepted proves nothing.
 */
export function examine(seen: readonly Told[], ledger: LedgerSums): void {
  compare(seen, ledger);
  const [one] = ledger.accepted;
  assert(one !== undefined, "Cannot compare what was told with the ledger: nothing was accepted");
  const without = (ids: Iterable<ContributionId>): ContributionId[] => [...ids].filter((id) => id !== one);
  const seenLess = (name: "taken" | "accepted"): Told[] =>
    seen.map((told) => ({ ...told, [name]: without(told[name]) }));
  const heldLess = (name: "contributed" | "accepted" | "merged"): LedgerSums => ({
    ...ledger,
    [name]: new Set(without(ledger[name])),
  });
  const broken: readonly (readonly [readonly Told[], LedgerSums])[] = [
    [seenLess("taken"), ledger],
    [seenLess("accepted"), ledger],
    [seen, heldLess("contributed")],
    [seen, heldLess("accepted")],
    [seen, heldLess("merged")],
  ];
  const passed = broken.filter(([told, held]) => differs(told, held) === null);
  assert(passed.length === 0, "The oracle does not see that a contribution is missing");
}

/** Throws HeddleError "integrity" where what was told is not what the ledger holds. */
export function compare(seen: readonly Told[], ledger: LedgerSums): void {
  const fault = differs(seen, ledger);
  if (fault !== null) {
    throw new HeddleError("integrity", `A result was lost: ${fault}`);
  }
}

function differs(seen: readonly Told[], { contributed, accepted, merged }: LedgerSums): string | null {
  const told = (list: (one: Told) => readonly string[]): string => seen.flatMap(list).sort().join();
  const held = (ids: ReadonlySet<string>): string => [...ids].sort().join();
  if (told(({ taken }) => taken) !== held(contributed)) {
    return "receipts that were told are not what the ledger holds";
  }
  if (told((one) => one.accepted) !== held(accepted)) {
    return "verdicts that were told are not what the ledger holds";
  }
  return held(accepted) === held(merged) ? null : "what was accepted is not what was merged";
}

/** Adds what a contributor is told to `told`. Its updates have one piece, so that a "have" is a receipt. */
export function note(told: Told, message: RelayMessage): void {
  if (message.type === "have") {
    told.taken.push(message.contribution);
  } else if (message.type === "verdict") {
    const { contribution, verdict } = message;
    if (verdict.type === "accepted") {
      told.accepted.push(contribution);
    } else {
      told.refused.push({ contribution, reason: verdict.reason });
    }
  }
}
