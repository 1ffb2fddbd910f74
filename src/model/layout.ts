/**
 * Where each parameter of a model lies in the one flat state tensor "params" [P]: matrices first, which AdamW decays (the
 * embedding and the head are matrices and decay too, as in nanoGPT), then the norms' gains, which it does not. Deltas,
 * checkpoints and the optimiser see only the flat array; the transformer (`llama.ts`) sees the entries as views.
 */
import { HeddleError } from "../base/assert.ts";
import { createRng } from "../base/rng.ts";
import type { ModelConfig } from "../protocol/charter.ts";
import { ALIGNMENT, elementCount } from "../tensor/program.ts";

export interface ParameterEntry {
  /** "layers.0.attention.q": weights are [out,in], so that a forward product is x · wᵀ. */
  readonly name: string;
  readonly shape: readonly number[];
  /** First element in "params". */
  readonly offset: number;
  readonly decay: boolean;
}

export interface ParameterLayout {
  readonly entries: readonly ParameterEntry[];
  /** P: all entries and the padding between them, which is zero and stays zero. */
  readonly size: number;
  /** Elements with a smaller index are decayed. */
  readonly decayCount: number;
}

/** Lays out the parameters of `config`. Throws HeddleError "bad-input" when the sizes do not fit together. */
export function parameterLayout(config: ModelConfig): ParameterLayout {
  const matrices = matrixShapes(config);
  const gains = gainShapes(config);
  const entries: ParameterEntry[] = [];
  let offset = 0;
  for (const [name, shape] of [...matrices, ...gains]) {
    entries.push({ name, shape, offset, decay: entries.length < matrices.length });
    offset += Math.ceil(elementCount(shape) / ALIGNMENT) * ALIGNMENT;
  }
  const firstGain = entries[matrices.length];
  return { entries, size: offset, decayCount: firstGain?.offset ?? offset };
}

/** Width D of one attention head. Throws HeddleError "bad-input" when the model's sizes do not fit together. */
export function headDimOf(config: ModelConfig): number {
  const { vocabulary, channels, layers, heads, kvHeads, hidden, time } = config;
  const sizes = { vocabulary, channels, layers, heads, kvHeads, hidden, time };
  for (const [name, value] of Object.entries(sizes)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new HeddleError("bad-input", `Cannot lay out model: ${name} is ${value}, need a positive integer`);
    }
  }
  if (channels % (2 * heads) !== 0) {
    throw new HeddleError(
      "bad-input",
      `Cannot lay out model: ${channels} channels do not give ${heads} heads of equal, even width`,
    );
  }
  if (heads % kvHeads !== 0) {
    throw new HeddleError(
      "bad-input",
      `Cannot lay out model: ${heads} heads are not a multiple of ${kvHeads} key/value heads`,
    );
  }
  return channels / heads;
}

/**
 * Initial weights [P] from `config.seed`: normal with deviation 0.02, the two matrices of each layer that write to the
 * residual stream scaled by 1/√(2·layers) (GPT-2), gains 1, padding 0. Not equal to the bit between JavaScript engines:
 * a run distributes its first version as bytes.
 */
export function initialParameters(config: ModelConfig): Float32Array<ArrayBuffer> {
  const { entries, size } = parameterLayout(config);
  const params = new Float32Array(size);
  for (const { name, shape, offset, decay } of entries) {
    const count = elementCount(shape);
    if (!decay) {
      params.fill(1, offset, offset + count);
      continue;
    }
    const residual = name.endsWith("attention.o") || name.endsWith("feed.down");
    const deviation = residual ? 0.02 / Math.sqrt(2 * config.layers) : 0.02;
    const rng = createRng("initial parameters", config.seed, name);
    for (let i = offset; i < offset + count; i += 1) {
      params[i] = rng.normal() * deviation;
    }
  }
  return params;
}

type NamedShape = readonly [name: string, shape: readonly number[]];

function matrixShapes(config: ModelConfig): NamedShape[] {
  const { vocabulary: V, channels: C, hidden: F } = config;
  const kvWidth = config.kvHeads * headDimOf(config);
  const shapes: NamedShape[] = [["embedding", [V, C]]];
  for (let layer = 0; layer < config.layers; layer += 1) {
    shapes.push(
      [`layers.${layer}.attention.q`, [C, C]],
      [`layers.${layer}.attention.k`, [kvWidth, C]],
      [`layers.${layer}.attention.v`, [kvWidth, C]],
      [`layers.${layer}.attention.o`, [C, C]],
      [`layers.${layer}.feed.gate`, [F, C]],
      [`layers.${layer}.feed.up`, [F, C]],
      [`layers.${layer}.feed.down`, [C, F]],
    );
  }
  if (!config.tied) {
    shapes.push(["head", [V, C]]);
  }
  return shapes;
}

function gainShapes({ layers, channels: C }: ModelConfig): NamedShape[] {
  const shapes: NamedShape[] = [];
  for (let layer = 0; layer < layers; layer += 1) {
    shapes.push([`layers.${layer}.attention.norm`, [C]], [`layers.${layer}.feed.norm`, [C]]);
  }
  return [...shapes, ["final.norm", [C]]];
}
