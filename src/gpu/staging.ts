/**
 * The buffers through which a Plan's outputs come to the host. One is kept for each list of outputs that was asked for, so
 * that a training step which looks at its loss allocates nothing; runs that overlap take one each. They end with the Plan's others.
 */
import { assert, present } from "../base/assert.ts";
import type { Program } from "../tensor/program.ts";
import type { Compiled, Place } from "./compile.ts";

/** Staging buffers of one Plan. */
const STAGING_MAX = 16;

/** A buffer that outputs are copied to, one after the other, and that the host maps. */
export interface Staging {
  /** It comes to be where it is first asked for: within a submit, whose error scope hears of it if there is no memory. */
  readonly buffer: GPUBuffer;
  readonly copies: readonly { readonly output: string; readonly from: Place; readonly offset: number }[];
  /** Ends the buffer, if it has come to be. */
  destroy(): void;
  /** A run copies to it, or the host reads it. */
  taken: boolean;
}

export interface StagingPool {
  /** One for `outputs` that nobody uses, now taken. Throws when all that there may be are in use. */
  take(outputs: readonly string[]): Staging;
}

export function createStagingPool(create: (outputs: readonly string[]) => Staging): StagingPool {
  let pool: { readonly key: string; readonly staging: Staging }[] = [];
  const add = (key: string, outputs: readonly string[]): Staging => {
    if (pool.length >= STAGING_MAX) {
      const oldest = pool.find(({ staging }) => !staging.taken);
      assert(
        oldest !== undefined,
        `Cannot read outputs: ${pool.length} runs are waiting for theirs, the most there may be`,
      );
      oldest.staging.destroy();
      pool = pool.filter((one) => one !== oldest);
    }
    const staging = create(outputs);
    pool.push({ key, staging });
    return staging;
  };
  return {
    take: (outputs) => {
      const key = outputs.join("\n");
      const spare = pool.find((one) => one.key === key && !one.staging.taken)?.staging;
      const staging = spare ?? add(key, outputs);
      staging.taken = true;
      return staging;
    },
  };
}

/** Its buffer is one of the Plan's `own`. */
export function createStaging(
  device: GPUDevice,
  program: Program,
  { places, own, outputs }: Pick<Compiled, "places" | "own"> & { readonly outputs: readonly string[] },
): Staging {
  let size = 0;
  const copies = outputs.map((output) => {
    assert(program.outputs.includes(output), `Cannot read "${output}": it is not an output of "${program.name}"`);
    const id = present(program.tensors.find(({ name }) => name === output)?.id, `output "${output}"`);
    const from = present(places[id], `memory of "${output}"`);
    const offset = size;
    size += from.size;
    return { output, from, offset };
  });
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
  let made: GPUBuffer | undefined;
  return {
    get buffer() {
      if (made === undefined) {
        made = device.createBuffer({ label: `${program.name} outputs`, size, usage });
        own.add(made);
      }
      return made;
    },
    copies,
    destroy: () => {
      if (made !== undefined) {
        made.destroy();
        own.delete(made);
      }
    },
    taken: false,
  };
}

/** The values in `staging`, which is mapped; it is free again afterwards. */
export function unload(staging: Staging): Record<string, Float32Array<ArrayBuffer>> {
  const { buffer, copies } = staging;
  const bytes = buffer.getMappedRange();
  const values = Object.fromEntries(
    copies.map(({ output, from, offset }) => [output, new Float32Array(bytes.slice(offset, offset + from.size))]),
  );
  buffer.unmap();
  staging.taken = false;
  return values;
}
