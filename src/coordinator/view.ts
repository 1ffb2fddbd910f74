/** The public record of a run, as a projection of the coordinator's state. */
import type { RunView } from "../protocol/run-view.ts";
import type { CoordinatorState } from "./live.ts";

export function viewOf({ charter, durable, live }: CoordinatorState): RunView {
  return {
    run: durable.run,
    charter,
    parameters: durable.head.checkpointBytes / 4,
    round: durable.round,
    phase: phaseOf(durable.stage, live.merging),
    connected: live.sessions.size,
    versions: durable.versions,
  };
}

function phaseOf(stage: CoordinatorState["durable"]["stage"], merging: boolean): RunView["phase"] {
  switch (stage) {
    case "idle":
      return "gathering";
    case "open":
      return "training";
    case "closed":
      return merging ? "merging" : "judging";
    default:
      return stage satisfies never;
  }
}
