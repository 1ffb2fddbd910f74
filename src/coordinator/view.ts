/** The public record of a run and what its operator sees beside it, as projections of the coordinator's state. */
import type { ContributorId, Digest } from "../base/bytes.ts";
import type { Charter } from "../protocol/charter.ts";
import type { RunView } from "../protocol/run-view.ts";
import type { CoordinatorState } from "./live.ts";
import { hasBlob, type DurableState } from "./state.ts";

export function viewOf({ charter, durable, live }: CoordinatorState): RunView {
  return {
    run: durable.run,
    charter,
    parameters: durable.head.checkpointBytes / 4,
    round: durable.round,
    phase: phaseOf(durable, live.merging),
    connected: live.sessions.size,
    versions: durable.versions,
  };
}

/** Tells of a blob whether it belongs to the public record, which is checkpoints, updates, contributions, data and charter. */
export function createPublicRecord({ train, evaluation }: Charter): (durable: DurableState, blob: Digest) => boolean {
  const data = new Set([...train, evaluation].flatMap((set) => set.shards.map((shard) => shard.digest)));
  return (durable, blob) => blob === durable.run || data.has(blob) || hasBlob(durable, blob);
}

export interface OperatorView {
  readonly draining: boolean;
  readonly paused: boolean;
  readonly banned: readonly { readonly contributor: ContributorId; readonly why: string }[];
  /** Who is connected, and what each is doing. */
  readonly sessions: readonly {
    readonly contributor: ContributorId;
    readonly work: "train" | "validate" | null;
  }[];
}

export function operatorViewOf({ durable, live }: CoordinatorState): OperatorView {
  return {
    draining: live.draining,
    paused: durable.paused,
    banned: [...durable.banned].map(([contributor, why]) => ({ contributor, why })),
    sessions: [...live.sessions.values()].map(({ contributor, task }) => ({ contributor, work: task?.type ?? null })),
  };
}

function phaseOf({ stage, paused }: CoordinatorState["durable"], merging: boolean): RunView["phase"] {
  switch (stage) {
    case "idle":
      return paused ? "paused" : "gathering";
    case "open":
      return "training";
    case "closed":
      return merging ? "merging" : "judging";
    default:
      return stage satisfies never;
  }
}

/** What watchers are told of: changes when the phase, the round or the number of contributors does. */
export function summaryOf({ durable, live }: CoordinatorState): string {
  return `${durable.round} ${durable.stage} ${durable.paused} ${live.merging} ${live.sessions.size}`;
}
