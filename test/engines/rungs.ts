/** The kernels and ways to compute that an engine would not take by itself, and which cases of the contract show that they are right. */
import { ATTENTION_RUNGS } from "../../src/gpu/attention.ts";
import { MATMUL_RUNGS, type MatmulRung } from "../../src/gpu/matmul.ts";
import { MUON_RUNGS } from "../../src/gpu/muon.ts";
import { ROW_RUNGS } from "../../src/gpu/rows.ts";
import { cases, type Case } from "./cases.ts";
import { halfCases } from "./half-cases.ts";

export interface Rung {
  readonly name: string;
  readonly choice: object;
  /** The cases that it must pass as well. */
  readonly cases: readonly Case[];
}

/** The rung that keeps values as f16 and chooses its kernels by itself. */
export const HALVES = "f16: ";

const HEADS: readonly Case["op"][] = ["attention", "attentionBackward"];

/** Every kernel of the ladders; those whose names begin with "f16" want a device that has it. */
export const rungs: readonly Rung[] = [
  ...MATMUL_RUNGS.map((matmul) => ({ name: `${matmul}: `, choice: { matmul }, cases: of(cases, productsFor(matmul)) })),
  ...ATTENTION_RUNGS.map((attention) => ({
    name: `${attention} attention: `,
    choice: { attention },
    cases: of(cases, HEADS),
  })),
  ...ROW_RUNGS.map((rows) => ({
    name: `${rows} rows: `,
    choice: { rows },
    cases: of(cases, ["rmsNorm", "rmsNormBackward", "crossEntropy", "crossEntropyBackward"]),
  })),
  ...MUON_RUNGS.map((muon) => ({ name: `${muon} muon: `, choice: { muon }, cases: of(cases, ["muon"]) })),
  { name: "not fused: ", choice: { fusion: "none" }, cases: of(cases, ["model in fours"]) },
  { name: HALVES, choice: { storage: "f16" }, cases: halfCases },
  ...MATMUL_RUNGS.map((matmul) => ({
    name: `f16 ${matmul}: `,
    choice: { matmul, storage: "f16" },
    cases: of(halfCases, productsFor(matmul)),
  })),
  ...ATTENTION_RUNGS.map((attention) => ({
    name: `f16 ${attention} attention: `,
    choice: { attention, storage: "f16" },
    cases: of(halfCases, HEADS),
  })),
  ...ROW_RUNGS.map((rows) => ({
    name: `f16 ${rows} rows: `,
    choice: { rows, storage: "f16" },
    cases: of(halfCases, ["rmsNorm"]),
  })),
];

function of(among: readonly Case[], ops: readonly Case["op"][]): Case[] {
  return among.filter(({ op }) => ops.includes(op));
}

/** Kernels in blocks give way to another where a size is no multiple of 4. Whole models take minutes on some compilers. */
function productsFor(rung: MatmulRung): readonly Case["op"][] {
  if (rung === "naive" || rung === "register") {
    return ["matmul", "matmul in fours"];
  }
  if (/^(tiled|split)/.test(rung)) {
    return ["matmul", "matmul in fours", "model in fours"];
  }
  return /^(subgroup|lanes)/.test(rung) ? ["matmul in fours"] : ["matmul in fours", "model in fours"];
}
