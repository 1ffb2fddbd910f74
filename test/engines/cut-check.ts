/** What must hold where a dispatch may compute little: products and attention are cut, and nothing that is computed changes by it. */
import { present } from "../../src/base/assert.ts";
import { createGpuEngine } from "../../src/gpu/engine.ts";
import { attentionBackwardCase, attentionCase, matmulCase, type Case } from "./cases.ts";
import { compare, execute, isolated } from "./run-cases.ts";

/** Too few for 128 of the rows below, and for the five sequences. */
const FLOPS_MAX = 3e5;

const HEADS = { batch: 5, time: 32, heads: 2, kvHeads: 1, headDim: 16 };
/** Cases, and how many dispatches they take then; what goes back is cut to single sequences, after two dispatches forward. */
const CUT: readonly (readonly [Case, number])[] = [
  [matmulCase({ m: 200, n: 36, k: 40 }, { transA: false, transB: true, add: true, bias: true }), 4],
  [matmulCase({ m: 200, n: 36, k: 40 }, { transA: false, transB: false, add: false }), 4],
  [attentionCase(HEADS), 2],
  [attentionBackwardCase(HEADS), 2 + 5 * 2],
];
/** Its sum is cut, and added up in another order. */
const SUMMED = matmulCase({ m: 40, n: 36, k: 200 }, { transA: true, transB: false, add: true });

export async function checkCut(gpu: GPU): Promise<string> {
  using whole = await createGpuEngine({ gpu });
  using cut = await createGpuEngine({ gpu, choice: { flopsMax: FLOPS_MAX } });
  for (const [one, dispatches] of CUT) {
    const setup = isolated(one.setup());
    const counts: number[] = [];
    for (const engine of [whole, cut]) {
      using plan = await engine.compile(setup.program);
      counts.push(plan.dispatchCount);
    }
    const [expected, got] = [await execute(whole, setup), await execute(cut, setup)];
    for (const [name, values] of expected) {
      const other = present(got.get(name), name);
      if (!values.every((value, i) => Object.is(value, other[i]))) {
        throw new Error(`${one.name}: "${name}" differs where it is cut`);
      }
    }
    if (counts[1] !== dispatches || !((counts[0] as number) < dispatches)) {
      throw new Error(`${one.name} takes ${counts.join(" and ")} dispatches, need ${dispatches}`);
    }
  }
  return await compare(cut, SUMMED);
}
