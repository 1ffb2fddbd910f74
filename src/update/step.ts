/**
 * A step from a version to the next over a crew's ranges: the merge (`merge.ts`), the outer step, one recompressed update for
 * everybody, and the base after it. A function of its arguments to the last bit, whatever the crew; anyone who has them gets the
 * same. What ranges have to know of each other are three numbers: the sum of squares, which goes from one to the next, the
 * fullest chunk, and how many bits each packs.
 */
import type { Bytes } from "../base/bytes.ts";
import type { Compression } from "../protocol/charter.ts";
import type { Base, Crew } from "./crew.ts";
import { mergePacked, stretchFactor, type PackedContribution } from "./merge.ts";
import { serverBytesOf } from "../protocol/capacity.ts";
import { createServerState, type OuterSettings, vectorsAfter } from "./outer.ts";
import { joinChunks } from "./pack.ts";

export interface StepSettings {
  readonly outer: OuterSettings;
  readonly downlink: Compression;
  /** Packed updates held at a time; a larger one is held alone. */
  readonly packedBytesMax?: number;
}

/** The base after a step, in the crew's memory, and the packed update that every replica applies. */
export interface Step {
  readonly base: Base;
  readonly broadcast: Bytes;
}

/** Rejects as `mergePacked` does. */
export async function stepOver(
  crew: Crew,
  before: Base,
  contributions: readonly PackedContribution[],
  { outer, downlink, packedBytesMax }: StepSettings,
): Promise<Step> {
  const parameters = before.params.length;
  const { clipToMedian, normPower, stretch } = outer;
  const merging = { parameters, clipToMedian, normPower, ...(packedBytesMax === undefined ? {} : { packedBytesMax }) };
  const { workers, parts } = await mergePacked(crew, contributions, merging);
  let factor = 1;
  if (stretch > 0) {
    let squares = 0;
    for (const worker of workers) {
      squares = await worker.squares(squares);
    }
    factor = stretchFactor(squares, parts, stretch);
  }
  const next = nextBase(crew, before, outer);
  const counted = await Promise.all(
    workers.map(async (worker) => worker.advance({ before, next, outer, downlink, factor })),
  );
  const keep = Math.max(...counted.map((each) => each.keep));
  const entries = counted.reduce((sum, each) => sum + each.entries, 0);
  const packed = await Promise.all(workers.map(async (worker) => worker.pack(keep)));
  return { base: next, broadcast: joinChunks(packed, { bits: downlink.bits, keep, parameters, entries }) };
}

/** Room for the base after `before`, whose every byte is written by some worker. */
function nextBase({ memory }: Crew, before: Base, outer: OuterSettings): Base {
  const parameters = before.params.length;
  const vectors = vectorsAfter(before.server, outer);
  const params = new Float32Array(memory.take(parameters * 4));
  return { params, server: createServerState(parameters, vectors, memory.take(serverBytesOf(parameters, vectors))) };
}
