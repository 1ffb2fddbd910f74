/** Looking into an engine: every Plan that it compiles is told as text, as `DEBUG=2` asks for. */
import type { Engine } from "../tensor/engine.ts";

/** `engine`, which hands the text of each Plan to `onPlan` when it has compiled it. */
export function explainPlans(engine: Engine, onPlan: (text: string) => void): Engine {
  return {
    kind: engine.kind,
    device: engine.device,
    compile: async (program) => {
      const plan = await engine.compile(program);
      onPlan(plan.describe());
      return plan;
    },
    writeState: engine.writeState,
    readState: engine.readState,
    [Symbol.dispose]: () => engine[Symbol.dispose](),
  };
}
