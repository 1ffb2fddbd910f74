/** The twin with failures of a test's choosing. */
import { HeddleError } from "../base/assert.ts";
import type { Engine, Outputs } from "../tensor/engine.ts";
import type { Program } from "../tensor/program.ts";
import { createTwin } from "../tensor/twin.ts";

/** What a device that goes away does. */
export function lose(): never {
  throw new HeddleError("device-lost", "The GPU went away: reset");
}

/** The twin, whose training steps have an outcome of the test's choosing. */
export function twinWhose(outcome: (step: number, values: Outputs<string>) => Outputs<string>): Engine {
  const twin = createTwin();
  let steps = 0;
  const compile = async (program: Program) => {
    const plan = await twin.compile(program);
    const run = async <Name extends string>(names: readonly Name[] = []) => {
      const values = await plan.run<string>(names);
      const isStep = names.includes("norm" as Name); // a training step is read for its loss and its norm
      steps += isStep ? 1 : 0;
      return (isStep ? outcome(steps, values) : values) as Outputs<Name>;
    };
    return { ...plan, run, [Symbol.dispose]: () => plan[Symbol.dispose]() };
  };
  return { ...twin, compile };
}
