/** The public record of a run, served as JSON at `/api/run`; how it changes, by server-sent events at `/api/events`. A projection of the ledger. */
import type { Digest } from "../base/bytes.ts";
import type { Charter } from "./charter.ts";

export interface VersionView {
  readonly version: number;
  readonly digest: Digest;
  readonly timeMs: number;
  readonly evalLoss: number;
  readonly contributors: number;
  readonly accepted: number;
  readonly refused: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly tokensPerS: number;
}

export interface RunView {
  readonly run: Digest;
  readonly charter: Charter;
  readonly parameters: number;
  readonly round: number;
  readonly phase: "gathering" | "paused" | "training" | "judging" | "merging";
  /** Contributors connected now. */
  readonly connected: number;
  /** Every version so far, oldest first; the first is the start. At most the last 10,000. */
  readonly versions: readonly VersionView[];
}

/** What listeners are told of a run at once and whenever it changes: not what they have from its record, which may be megabytes. */
export interface RunChange extends Pick<RunView, "run" | "round" | "phase" | "connected"> {
  /** The newest version. */
  readonly head: VersionView;
}
