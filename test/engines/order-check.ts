/** What must hold of the WebGPU engine when it is used out of order: mistakes are named and break nothing, runs are not seen half done. */
import { AssertionError } from "../../src/base/assert.ts";
import { createGpuEngine } from "../../src/gpu/engine.ts";
import type { Pace } from "../../src/tensor/engine.ts";
import { record } from "../../src/tensor/record.ts";

const COUNT = 300;

/** Adds x to both of two states, by a dispatch each. */
function twoStates() {
  const r = record("two states");
  const x = r.input("x", [COUNT]);
  for (const name of ["first", "second"]) {
    const state = r.state(name, [COUNT]);
    r.add(state, x, state);
  }
  return r.finish(["first", "second"]);
}

/** Looks at the sum of both. */
function sumOfStates() {
  const r = record("sum of states");
  const [first, second] = [r.state("first", [COUNT]), r.state("second", [COUNT])];
  r.add(first, second, r.value("sum", [COUNT]));
  return r.finish(["sum"]);
}

function filled(value: number): Float32Array<ArrayBuffer> {
  return new Float32Array(COUNT).fill(value);
}

/** The message of the AssertionError that `work` must end in. */
async function expectAssertion(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof AssertionError) {
      return error.message;
    }
    throw error;
  }
  throw new Error("Nothing was thrown; need an AssertionError");
}

export async function checkMistakes(gpu: GPU): Promise<string> {
  using engine = await createGpuEngine({ gpu });
  const plan = await engine.compile(twoStates());
  const messages = [
    await expectAssertion(() => plan.write("x", new Float64Array(COUNT) as never)),
    await expectAssertion(() => plan.write("x", new Uint32Array(COUNT))),
    await expectAssertion(() => engine.writeState("first", new Float64Array(COUNT) as never)),
  ];
  plan.write("x", filled(1));
  const { first } = await plan.run(["first"]);
  const running = plan.run(["first"]);
  plan[Symbol.dispose]();
  messages.push(await expectAssertion(() => running));
  const kept = await engine.readState("first");
  if (first[COUNT - 1] !== 1 || kept[COUNT - 1] !== 2 || engine.failure() !== undefined) {
    throw new Error(`Got ${first[COUNT - 1]}, then ${kept[COUNT - 1]}, and ${engine.failure()?.message}`);
  }
  return messages.join("; ");
}

/** A pace of one dispatch a submit, which waits between two of them until it is told to go on. */
export async function checkOrder(gpu: GPU): Promise<string> {
  let go = (): void => undefined;
  let reached = (): void => undefined;
  const between = new Promise<void>((resolve) => (reached = resolve));
  const gate = new Promise<void>((resolve) => (go = resolve));
  let held = false;
  const submitted = async (_from: number, to: number, done: Promise<void>): Promise<void> => {
    await done;
    if (to === 1 && !held) {
      held = true;
      reached();
      await gate;
    }
  };
  const pace: Pace = { plan: () => ({ until: (from) => from + 1, submitted }) };
  using engine = await createGpuEngine({ gpu, pace, choice: { fusion: "none" } });
  using plan = await engine.compile(twoStates());
  using other = await engine.compile(sumOfStates());
  plan.write("x", filled(1));
  const running = plan.run();
  await between;
  const messages = [
    await expectAssertion(() => plan.write("x", filled(2))),
    await expectAssertion(() => engine.writeState("second", filled(2))),
    await expectAssertion(() => plan.run()),
  ];
  const [second, sum] = [engine.readState("second"), other.run(["sum"])];
  go();
  await running;
  const seen = [(await second)[COUNT - 1], (await sum).sum[COUNT - 1]];
  if (seen.join() !== "1,2") {
    throw new Error(`A read and another Plan saw ${seen} in the middle of a run, need 1,2`);
  }
  engine.writeState("second", filled(5));
  const { second: after } = await plan.run(["second"]);
  if (after[0] !== 6) {
    throw new Error(`Got ${after[0]} after the run, need 6`);
  }
  return messages.join("; ");
}
