/**
 * Cases of the contract for what is sent of an update: error feedback, and the op pack, whose every bit is defined. A shape is a
 * kernel that a software adapter compiles for a second, so there are few shapes and many kinds of values.
 */
import { createRng, type Rng } from "../../src/base/rng.ts";
import { record } from "../../src/tensor/record.ts";
import type { PackForm } from "../../src/tensor/slots.ts";
import type { Case } from "./cases.ts";

/** Values with ties, zeros, tiny and huge ones; those far apart want sums that keep what is small. */
const VALUES = {
  plain: (rng: Rng) => rng.normal(),
  ties: (rng: Rng) => rng.below(5) - 2,
  sparse: (rng: Rng) => (rng.float() < 0.01 ? rng.normal() : 0),
  wide: (rng: Rng) => (rng.float() - 0.5) * 2 ** (rng.below(270) - 145),
  "far apart": (rng: Rng) => rng.normal() * (rng.below(500) === 0 ? 1 : 2 ** -30),
  "not finite": (rng: Rng) => (rng.below(99) === 0 ? Infinity : 1),
} as const;

type Kind = keyof typeof VALUES;

export const updateCases: readonly Case[] = [
  ...[1, 1023, 1028].map(feedbackCase),
  contributionCase(8200, { keep: 64, bits: 2 }),
  packCase(1, { keep: 64, bits: 2 }, "plain"),
  ...(["plain", "wide"] as const).map((kind) => packCase(4095, { keep: 4096, bits: 4 }, kind)),
  ...(Object.keys(VALUES) as Kind[]).map((kind) => packCase(8200, { keep: 64, bits: 2 }, kind)),
  ...[1, 3, 4].flatMap((bits) =>
    (["plain", "ties", "wide", "far apart"] as const).map((kind) => packCase(8200, { keep: 64, bits }, kind)),
  ),
];

function feedbackCase(count: number): Case {
  const name = `feedback ${count}`;
  return {
    name,
    op: "feedback",
    tolerance: 1e-5,
    setup: () => {
      const rng = createRng("engines", name);
      const floats = (): Float32Array<ArrayBuffer> => Float32Array.from({ length: count }, () => rng.float() * 2 - 1);
      const r = record(name);
      const shape = [count];
      const [residual, params, base] = [r.state("residual", shape), r.state("params", shape), r.input("base", shape)];
      r.feedback(residual, { base, params, scale: r.input("scale", [1]) });
      const inputs = { base: floats(), scale: Float32Array.of(0.9) };
      const states = { residual: floats(), params: floats() };
      return { program: r.finish(["residual"]), inputs: () => inputs, states, steps: 2 };
    },
  };
}

/** As a contributor does it: an input that is changed in place, packed and read. No number is rounded, so all bits are defined. */
function contributionCase(count: number, form: PackForm): Case {
  const name = `feedback ${count}, then pack ${form.keep}`;
  return {
    name,
    op: "pack",
    tolerance: 0,
    setup: () => {
      const rng = createRng("engines", name);
      const exact = (): Float32Array<ArrayBuffer> =>
        Float32Array.from({ length: count }, () => rng.below(2001) / 2 ** 12);
      const r = record(name);
      const shape = [count];
      const [residual, base] = [r.input("residual", shape), r.input("base", shape)];
      r.feedback(residual, { base, params: r.state("params", shape), scale: r.input("scale", [1]) });
      r.pack(residual, form);
      const inputs = { residual: exact(), base: exact(), scale: Float32Array.of(0.5) };
      const program = r.finish(["slots", "residual"]);
      return { program, inputs: () => inputs, states: { params: exact() }, steps: 1 };
    },
  };
}

function packCase(count: number, form: PackForm, kind: Kind): Case {
  const name = `pack ${form.keep} of ${count} with ${form.bits} bits, ${kind}`;
  return {
    name,
    op: "pack",
    tolerance: 0,
    setup: () => {
      const rng = createRng("engines", name);
      const r = record(name);
      r.pack(r.input("residual", [count]), form);
      const residual = Float32Array.from({ length: count }, () => VALUES[kind](rng));
      return { program: r.finish(["slots"]), inputs: () => ({ residual }), states: {}, steps: 1 };
    },
  };
}
