/** What must hold of the WebGPU engine when it is used out of order: mistakes are named and break nothing, runs are not seen half done. */
import { AssertionError } from "../../src/base/assert.ts";
import { createGpuEngine } from "../../src/gpu/engine.ts";
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
