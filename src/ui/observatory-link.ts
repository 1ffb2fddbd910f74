/**
 * The observatory's end of its worker, and what the two say to each other. One worker follows the ledger as long as the page is
 * open; another verifies the run, once, and is gone when it has finished or is stopped.
 */
import type { Digest } from "../base/bytes.ts";
import type { Progress } from "../coordinator/finding.ts";
import type { SeenEntry, Verification } from "../coordinator/verify.ts";
import type { ContributionRecord, Moment, RoundRecord } from "../protocol/series.ts";

export type ObservatoryOrder =
  /** Read the ledger on to its end, from the start the first time. */
  | { readonly type: "follow"; readonly relay: string }
  /** Read the contributions of the entries `from` … `to` (exclusive). Only the last question is answered. */
  | { readonly type: "round"; readonly relay: string; readonly from: number; readonly to: number }
  | { readonly type: "verify"; readonly relay: string; readonly seen: SeenEntry | null };

export type ObservatoryEvent =
  | {
      readonly type: "added";
      readonly rounds: readonly RoundRecord[];
      readonly moments: readonly Moment[];
      /** Entries read so far, and how many there are. */
      readonly entries: number;
      readonly length: number;
      readonly last: Digest;
    }
  /** The chain breaks here: nothing after it can be shown. */
  | { readonly type: "broken"; readonly entry: number; readonly detail: string }
  /** The ledger could not be read further; the next order tries again. */
  | { readonly type: "trouble"; readonly sentence: string }
  | { readonly type: "contributions"; readonly from: number; readonly records: readonly ContributionRecord[] }
  /** The round of the entries from `from` on could not be read; it has to be asked for again. */
  | { readonly type: "unread"; readonly from: number; readonly sentence: string }
  | { readonly type: "progress"; readonly progress: Progress }
  | { readonly type: "verified"; readonly verification: Verification }
  | { readonly type: "failed"; readonly sentence: string };

export interface ObservatoryLink {
  send(order: ObservatoryOrder): void;
  close(): void;
}

export function openObservatory(tell: (event: ObservatoryEvent) => void): ObservatoryLink {
  const worker = new Worker(new URL("../../worker/observatory.ts", import.meta.url), { type: "module" });
  worker.addEventListener("message", ({ data }: MessageEvent<ObservatoryEvent>) => tell(data));
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    tell({ type: "failed", sentence: `The page's worker failed: ${event.message || "it did not start"}` });
  });
  return { send: (order) => worker.postMessage(order), close: () => worker.terminate() };
}
