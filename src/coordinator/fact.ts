/** What the ledger does not say and a watcher may want to count: the host tells it as it happens (`onFact`). */
import type { ContributorMessage } from "../protocol/messages.ts";
import type { Lane } from "../net/link.ts";
import type { Reason } from "../protocol/verdict.ts";

export type Fact =
  | { readonly type: "assigned"; readonly work: "train" | "validate" }
  /** A contribution was turned away before it reached the ledger. */
  | { readonly type: "rejected"; readonly reason: Reason }
  /** A message or a whole session was refused. */
  | { readonly type: "refused"; readonly reason: Reason }
  /** Bytes that the links of a lane carried, frame headers included, since the last such fact. */
  | { readonly type: "carried"; readonly lane: Lane; readonly up: number; readonly down: number }
  /** What came of introducing two contributors, as they say; no bytes of it came through the relay. */
  | {
      readonly type: "met";
      readonly outcome: Extract<ContributorMessage, { readonly type: "met" }>["outcome"];
      readonly bytes: number;
    };
