/**
 * The operator of a simulated run: pauses it, bans somebody, has the relay drained, at random times of the storm, and takes
 * all that concerns honest contributors back before the storm ends. Commands are given again until the ledger has them, since
 * a relay may die of anything at any time.
 */
import type { ContributorId } from "../base/bytes.ts";
import type { Rng } from "../base/rng.ts";
import type { OperatorCommand } from "../coordinator/live.ts";
import type { World } from "./world.ts";

/** How often the operator looks whether its wishes have come true. */
const LOOK_MS = 500;
/** The share of the storm after which everything is taken back. */
const BACK_SHARE = 0.7;

export function followOperator(
  world: World,
  { rng, stormMs, contributors }: { readonly rng: Rng; readonly stormMs: number; readonly contributors: number },
): void {
  const backMs = Math.floor(BACK_SHARE * stormMs);
  const order = (command: OperatorCommand): void => {
    if (world.relay === null) {
      world.clock.after(LOOK_MS, () => order(command));
    } else {
      void world.relay.operate(command);
    }
  };
  const number = rng.below(contributors);
  const somebody = (): void => {
    const machine = world.machines.get(number);
    if (machine !== undefined) {
      order({ type: "ban", contributor: machine.id, why: "The operator's mood" });
    }
  };
  world.clock.after(rng.below(backMs), () => order({ type: "pause" }));
  world.clock.after(rng.below(backMs), somebody);
  world.clock.after(rng.below(stormMs), () => order({ type: "drain" }));

  const takeBack = (): void => {
    if (world.relay !== null) {
      const { paused, banned } = world.relay.operatorView();
      if (paused) {
        order({ type: "resume" });
      }
      for (const { contributor } of banned.filter((one) => isHonest(world, one.contributor))) {
        order({ type: "unban", contributor });
      }
    }
    world.clock.after(LOOK_MS, takeBack);
  };
  world.clock.after(backMs, takeBack);
}

function isHonest({ machines }: World, id: ContributorId): boolean {
  return [...machines.values()].some((machine) => machine.id === id && machine.lie === null);
}
