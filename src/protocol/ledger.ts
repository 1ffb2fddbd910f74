/**
 * Events of a run's ledger: append-only, hash-chained, signed by the relay. The coordinator's durable state is the fold of
 * these events and nothing else, so a killed relay restarts where it was. An entry is appended, durably, before anybody is
 * told of what it says.
 */
import type { Bytes, ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import type { Losses, VersionInfo } from "./messages.ts";
import type { Verdict } from "./verdict.ts";

export type LedgerEvent =
  /** The run began: charter and initial checkpoint are blobs. `relay` is the public key that signs this ledger. */
  | { readonly type: "started"; readonly run: Digest; readonly relay: Bytes; readonly head: VersionInfo }
  /**
   * Another of several processes that share the store leads the run from here on. Its epoch is higher than any before; what
   * an earlier leader still writes expects a shorter ledger and is refused.
   */
  | { readonly type: "led"; readonly epoch: number }
  /** A device key was seen for the first time. */
  | {
      readonly type: "introduced";
      readonly contributor: ContributorId;
      readonly publicKey: Bytes;
      readonly agent: string;
    }
  /** A round of training began. The seeds of its assignments follow from `seed` and the contributor (`coordinator/assignment.ts`). */
  | { readonly type: "opened"; readonly round: number; readonly baseVersion: number; readonly seed: number }
  /** No more contributions are taken for the round; those received are judged. */
  | { readonly type: "closed"; readonly round: number }
  /** A contribution was received whole, its signature and form checked and its payload stored. */
  | {
      readonly type: "contributed";
      readonly contribution: ContributionId;
      readonly header: Bytes;
      readonly signature: Bytes;
      /** Euclidean norm of the decoded update. */
      readonly norm: number;
      /** Bytes of the message that brought it, or of its offer and its payload where that came in pieces. */
      readonly wireBytes: number;
    }
  /** `by` is the validator, "relay" for the relay's own referee or checks. */
  | {
      readonly type: "judged";
      readonly contribution: ContributionId;
      readonly verdict: Verdict;
      readonly by: ContributorId | "relay";
      readonly losses: Losses | null;
    }
  /** The operator excluded a device: it gets no session and its unjudged work is refused. A second one replaces the reason. */
  | { readonly type: "banned"; readonly contributor: ContributorId; readonly why: string }
  | { readonly type: "unbanned"; readonly contributor: ContributorId }
  /** The operator has no more rounds opened; the one under way ends. */
  | { readonly type: "paused" }
  | { readonly type: "resumed" }
  /** A round ended without an accepted contribution; the base stays. */
  | { readonly type: "skipped"; readonly round: number }
  /** Accepted contributions of the round became the next version. `server` holds the outer state (residual, momentum). */
  | {
      readonly type: "merged";
      readonly round: number;
      readonly head: VersionInfo;
      readonly contributions: readonly ContributionId[];
      readonly server: Digest;
      /** Wire bytes in both directions and training speed since the version before, for the public record. */
      readonly bytesUp: number;
      readonly bytesDown: number;
      readonly tokensPerS: number;
      readonly contributors: number;
      readonly refused: number;
    };

export interface LedgerEntry {
  readonly sequence: number;
  /** Milliseconds since the Unix epoch at the relay. */
  readonly timeMs: number;
  /** SHA-256 of the entry before, as it was written; 64 zeros for the first. */
  readonly previous: Digest;
  readonly event: LedgerEvent;
}
