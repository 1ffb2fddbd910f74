/** How Muon's matrices are grouped and told of; that the numbers are right is checked on devices (`test/engines/cases.ts`). */
import { expect, test } from "vitest";
import { trainProgram } from "../model/llama.ts";
import { gramPlaces, type MatrixPlace, type OpOf } from "../tensor/program.ts";
import { present } from "../base/assert.ts";
import type { Binding, Dispatch } from "./dispatch.ts";
import { fuse } from "./fuse.ts";
import { muonDispatches, muonGuess, type MuonRung } from "./muon.ts";
import { halfTensors } from "./storage.ts";

const [PARAMS, GRAM] = [0, 6];
/** Matrices of several shapes, 64 elements apart. */
const MATRICES = [
  [8, 4],
  [20, 140],
  [140, 20],
  [36, 36],
  [128, 12],
  [64, 64],
].reduce<MatrixPlace[]>((before, [rows = 0, columns = 0]) => {
  const last = before.at(-1);
  const end = last === undefined ? 0 : last.offset + last.rows * last.columns;
  return [...before, { offset: 64 * Math.ceil(end / 64) + 64, rows, columns }];
}, []);

const CONTEXT = { bindingBytesMax: 2 ** 27, rung: "blocks" } as const;

function muonOf(matrices: readonly MatrixPlace[]): OpOf<"muon"> {
  return { type: "muon", params: PARAMS, grads: 1, m: 2, norm: 3, hyper: 4, other: 5, gram: GRAM, mixed: 7, matrices };
}

function windowOf(dispatch: Dispatch, id: number): { readonly offset: number; readonly count: number } {
  const found = dispatch.bindings.find((binding) => binding.type === "tensor" && binding.id === id);
  return present((found as Extract<Binding, { type: "tensor" }>).window, `window of ${id}`);
}

/** Where the tables say that the matrices lie, in whole tensors. */
function told(dispatches: readonly Dispatch[]): (MatrixPlace & { readonly gram: number })[] {
  const firsts = dispatches.filter((_, i) => i % 16 === 1);
  return firsts.flatMap((grams, i) => {
    const update = present(dispatches[i * 16 + 15], "update");
    const table = present(grams.bindings[3], "table") as Extract<Binding, { type: "table" }>;
    const words = new Uint32Array(table.make().buffer);
    return Array.from({ length: words.length / 6 }, (_, k) => {
      const [, , offset = 0, gram = 0, rows = 0, columns = 0] = words.subarray(k * 6);
      return {
        offset: offset + windowOf(update, PARAMS).offset,
        gram: gram + windowOf(grams, GRAM).offset,
        rows,
        columns,
      };
    });
  });
}

test("muonDispatches() takes matrices of any number and shape together in 16 dispatches", () => {
  const dispatches = muonDispatches(muonOf(MATRICES), CONTEXT);
  const turn = ["muon-gram", "muon-mixed", "muon-apply"];
  const expected = ["muon-momentum", ...turn, ...turn, ...turn, ...turn, "muon-gram", "muon-mixed", "muon-update"];
  expect(dispatches.map(({ kernel }) => kernel)).toEqual(expected);
  // A tile is 32 × 32: squares of 1, 1, 1, 4, 1, 4 tiles, matrices of 1, 5, 5, 4, 4, 4.
  expect(dispatches.slice(0, 4).map(({ groups }) => groups)).toEqual([6, 12, 12, 23]);
  expect(new Set(dispatches.map(({ text, constants }) => text + Object.values(constants).join(" "))).size).toBe(5);
});

test("muonDispatches() is the same but for the text on every rung, and stages its tiles on GPUs", () => {
  const bare = (rung: MuonRung) =>
    muonDispatches(muonOf(MATRICES), { ...CONTEXT, rung }).map(({ constants, bindings, groups }) =>
      JSON.stringify({ constants, bindings, groups }),
    );
  expect(bare("staged")).toEqual(bare("blocks"));
  expect(bare("naive")).toEqual(bare("blocks"));
  expect([muonGuess({ software: false }), muonGuess({ software: true })]).toEqual(["staged", "blocks"]);
  const [, gram] = muonDispatches(muonOf(MATRICES), { ...CONTEXT, rung: "staged" });
  expect([gram?.kernel, gram?.text.includes("workgroupBarrier")]).toEqual(["muon-gram-staged", true]);
});

test("muonDispatches() leaves odd shapes to the naive kernels", () => {
  const [momentum, gram] = muonDispatches(muonOf([{ offset: 0, rows: 8, columns: 6 }]), CONTEXT);
  expect([momentum?.constants["WIDTH"], gram?.kernel]).toEqual(["1u", "muon-gram-naive"]);
});

test.each([2 ** 27, 2 ** 15, 2 ** 14])(
  "muonDispatches() tells every matrix's place once with bindings of %i",
  (limit) => {
    const dispatches = muonDispatches(muonOf(MATRICES), { ...CONTEXT, bindingBytesMax: limit });
    const { offsets } = gramPlaces(MATRICES);
    expect(told(dispatches)).toEqual(MATRICES.map((matrix, i) => ({ ...matrix, gram: offsets[i] })));
    const bindings = dispatches.flatMap((dispatch) => dispatch.bindings);
    const windows = bindings.flatMap((binding) => (binding.type === "tensor" ? (binding.window ?? []) : []));
    expect(windows.filter(({ offset }) => offset % 64 !== 0)).toEqual([]);
    expect(Math.max(...windows.map(({ count }) => 4 * count))).toBeLessThanOrEqual(limit);
    expect(dispatches.length > 16).toBe(limit < 2 ** 27);
  },
);

test("a matrix that no binding spans is bound whole, for the check of sizes to refuse", () => {
  const [, , , apply] = muonDispatches(muonOf([{ offset: 64, rows: 128, columns: 64 }]), {
    ...CONTEXT,
    bindingBytesMax: 2 ** 14,
  });
  expect(windowOf(present(apply, "apply"), 1)).toEqual({ offset: 64, count: 128 * 64 });
});

test("Muon shares a dispatch with no other op, and its memory is f32", () => {
  const size = { channels: 8, heads: 2, kvHeads: 1, hidden: 12, layers: 2, vocabulary: 12, time: 4 };
  const program = trainProgram({ ...size, tied: true, ropeBase: 100, normEps: 1e-5, seed: 1 }, 2, { muon: true });
  const groups = fuse(program, 8).filter((group) => group.flat().some(({ type }) => type === "muon"));
  expect(groups.map((group) => group.flat().length)).toEqual([1]);
  const [muon] = groups.flat(2) as [OpOf<"muon">];
  const halves = halfTensors(program);
  expect([muon.grads, muon.other, muon.gram, muon.mixed].filter((id) => halves.has(id))).toEqual([]);
});
