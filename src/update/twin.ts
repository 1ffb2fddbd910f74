/**
 * A step in plain words: what `merge.ts` and `step.ts` have to give, bit for bit, from updates that are unpacked, for all parameters
 * at once. Tests, the simulation's oracle and the benchmark compare with it; a round is not merged by it.
 *
 *     momentum ← μ·momentum + merged            (DiLoCo's Nesterov form, PyTorch's SGD with nesterov=True)
 *     residual ← β·residual + lr·(merged + μ·momentum)
 *     broadcast = pack(residual);  residual ← residual − unpack(broadcast);  base ← base − unpack(broadcast)
 */
import { assert, present } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Compression } from "../protocol/charter.ts";
import { updateNorm } from "./delta.ts";
import { settle } from "./feedback.ts";
import { countsOf, inOrder, stretchFactor, type MergeOptions } from "./merge.ts";
import { createServerState, type OuterSettings, type ServerState, vectorsAfter } from "./outer.ts";
import { packUpdate } from "./pack.ts";
import { unpackUpdate, type SparseUpdate } from "./unpack.ts";

export interface WeightedUpdate {
  /** Unique in the round; decides the order of summation. */
  readonly id: string;
  readonly update: SparseUpdate;
  /** Positive and finite. */
  readonly weight: number;
  /** Inner steps that made it. */
  readonly steps?: number;
  readonly privateData?: boolean;
}

/** The merged delta [P]; zero where nobody sent anything. */
export function mergeUpdates(
  updates: readonly WeightedUpdate[],
  { parameters, stretch, ...counting }: Omit<MergeOptions, "packedBytesMax">,
): Float64Array<ArrayBuffer> {
  const sorted = inOrder(updates);
  const parts = countsOf(
    sorted.map((each) => ({ ...each, norm: updateNorm(each.update) })),
    counting,
  );
  const mean = new Float64Array(parameters);
  const total = parts.reduce((sum, { weight }) => sum + weight, 0);
  for (const [at, { id, update }] of sorted.entries()) {
    assert(
      update.parameters === parameters,
      `Cannot merge updates: "${id}" is for ${update.parameters} parameters, need ${parameters}`,
    );
    const { scale, weight } = present(parts[at], "count of an update");
    const share = scale * (weight / total);
    const { indices, values } = update;
    for (let i = 0; i < indices.length; i += 1) {
      const index = indices[i] as number;
      mean[index] = (mean[index] as number) + share * (values[i] as number);
    }
  }
  if (stretch > 0) {
    const squares = mean.reduce((sum, value) => sum + value * value, 0);
    const factor = stretchFactor(squares, parts, stretch);
    return mean.map((value) => value * factor);
  }
  return mean;
}

export interface OuterResult {
  readonly server: ServerState;
  /** The packed update of the base. */
  readonly broadcast: Bytes;
  /** The same, unpacked: what every replica applies. */
  readonly update: SparseUpdate;
}

/** One outer step from `merged` [P]. With lr 1, μ 0, keep 4,096 and 64 bits the update is `merged` itself. */
export function outerStep(
  before: ServerState,
  merged: Float64Array,
  outer: OuterSettings,
  downlink: Compression,
): OuterResult {
  const parameters = before.residual.length;
  assert(
    merged.length === parameters,
    `Cannot take outer step: got ${merged.length} merged parameters, need ${parameters}`,
  );
  const server = createServerState(parameters, vectorsAfter(before, outer));
  const { residual, momentum } = server;
  for (let i = 0; i < parameters; i += 1) {
    const delta = merged[i] as number;
    let ahead = delta;
    if (momentum !== null) {
      const earlier = before.momentum?.[i] ?? 0;
      momentum[i] = outer.momentum === 0 ? earlier : outer.momentum * earlier + delta;
    }
    if (outer.momentum !== 0) {
      ahead = delta + outer.momentum * (momentum?.[i] ?? 0);
    }
    residual[i] = downlink.beta * (before.residual[i] as number) + outer.learningRate * ahead;
  }
  const broadcast = packUpdate(residual, downlink);
  const update = unpackUpdate(broadcast, { parameters, keepMax: downlink.keep, bits: downlink.bits });
  assert(update.ok, `Cannot take outer step: the broadcast does not unpack (${update.ok ? "" : update.detail})`);
  settle(residual, update.value);
  return { server, broadcast, update: update.value };
}
