/**
 * A Plan: a compiled Program that is replayed. A run encodes a fixed list of dispatches into a few compute passes and
 * submits them; it creates no buffer, no bind group and no pipeline. The host may be one run ahead of the device, never
 * more, and every error the device reports comes out of the next `run` or `read`.
 */
import { assert, present } from "../base/assert.ts";
import type { Plan } from "../tensor/engine.ts";
import { elementCount, type Program, type Tensor } from "../tensor/program.ts";
import { compileProgram, type Shared, type Step } from "./compile.ts";

/** Runs that may be submitted and not yet done. */
const IN_FLIGHT_MAX = 2;

export interface GpuPlan extends Plan {
  /** Dispatches of one run. */
  readonly dispatchCount: number;
  /** Kernels in the order in which a run dispatches them. */
  readonly kernels: readonly string[];
  /** Resolves when nothing that was submitted is left to do; rejects as `run` does. */
  idle(): Promise<void>;
  /**
   * Cuts every further run into this many submits of about equal dispatch counts, so that a slow device never works on one
   * for longer than its watchdog, or the person at the screen, puts up with.
   */
  setSubmits(count: number): void;
}

export async function createPlan(program: Program, shared: Shared, submitsPerRun: number): Promise<GpuPlan> {
  const { device, watch } = shared.open;
  const { steps, places, owned, valueBytes, stateBytes } = await compileProgram(program, shared);
  let slices = slice(steps, submitsPerRun);
  let disposed = false;
  const fences: Promise<void>[] = [];
  const readers = new Map<string, Reader>();
  const usable = (): void => {
    watch.check();
    assert(!disposed, `Cannot use Plan "${program.name}": it was disposed of`);
  };
  const find = (name: string): Tensor =>
    present(
      program.tensors.find((tensor) => tensor.name === name),
      `tensor "${name}" of "${program.name}"`,
    );

  return {
    valueBytes,
    stateBytes,
    dispatchCount: steps.length,
    kernels: steps.map(({ kernel }) => kernel),
    setSubmits: (count) => {
      slices = slice(steps, count);
    },
    write: (input, values) => {
      usable();
      const tensor = find(input);
      const count = elementCount(tensor.shape);
      assert(tensor.role === "input", `Cannot write "${input}": it is a ${tensor.role}, not an input`);
      assert(values.length === count, `Cannot write "${input}": got ${values.length} values, need ${count}`);
      assert(
        (tensor.dtype === "u32") === values instanceof Uint32Array,
        `Cannot write "${input}": its elements are ${tensor.dtype}`,
      );
      const { buffer } = present(places[tensor.id], `memory of "${input}"`);
      device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    },
    run: async () => {
      usable();
      const { done } = watch.scoped(`running "${program.name}"`, () => {
        for (const part of slices) {
          submit(device, part);
        }
      });
      const fence = Promise.all([done, watch.settle(device.queue.onSubmittedWorkDone())]).then(watch.check);
      // Whoever awaits it next sees the failure; until then it must not count as unhandled.
      fence.catch(() => undefined);
      fences.push(fence);
      while (fences.length >= IN_FLIGHT_MAX) {
        await fences.shift();
      }
      watch.check();
    },
    idle: async () => {
      await Promise.all(fences.splice(0));
      watch.check();
    },
    read: async (output) => {
      usable();
      assert(program.outputs.includes(output), `Cannot read "${output}": it is not an output of "${program.name}"`);
      const place = present(places[find(output).id], `memory of "${output}"`);
      const reader = readers.get(output) ?? createReader(shared, place.size);
      readers.set(output, reader);
      const values = reader.read(place.buffer, place.offset);
      await Promise.all([...fences, values]);
      watch.check();
      return values;
    },
    [Symbol.dispose]: () => {
      disposed = true;
      for (const buffer of owned) {
        buffer.destroy();
      }
      for (const reader of readers.values()) {
        reader[Symbol.dispose]();
      }
    },
  };
}

/** Copies windows of device buffers to the host through one staging buffer; readings wait for each other. */
export interface Reader {
  /** `size` bytes of `from` from `offset` on, as floats. Rejects with the device's failure. */
  read(from: GPUBuffer, offset: number): Promise<Float32Array<ArrayBuffer>>;
  [Symbol.dispose](): void;
}

export function createReader({ open: { device, watch } }: Shared, size: number): Reader {
  const staging = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  let last: Promise<unknown> = Promise.resolve();
  const read = async (from: GPUBuffer, offset: number): Promise<Float32Array<ArrayBuffer>> => {
    watch.check();
    const { done } = watch.scoped("reading from the GPU", () => {
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(from, offset, staging, 0, size);
      device.queue.submit([encoder.finish()]);
    });
    await Promise.all([done, watch.settle(staging.mapAsync(GPUMapMode.READ))]);
    const values = new Float32Array(staging.getMappedRange().slice(0));
    staging.unmap();
    watch.check();
    return values;
  };
  return {
    read: (from, offset) => {
      // The copy is submitted now, or as soon as the staging buffer is free again.
      const result = last.then(() => read(from, offset));
      last = result.catch(() => undefined);
      return result;
    },
    [Symbol.dispose]: () => staging.destroy(),
  };
}

/** One command buffer with one compute pass: WebGPU orders dispatches of a pass by what they read and write. */
function submit(device: GPUDevice, steps: readonly Step[]): void {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  let bound: GPUComputePipeline | undefined;
  for (const { pipeline, bindGroup, x, y } of steps) {
    if (pipeline !== bound) {
      pass.setPipeline(pipeline);
      bound = pipeline;
    }
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(x, y);
  }
  pass.end();
  device.queue.submit([encoder.finish()]);
}

function slice(steps: readonly Step[], count: number): Step[][] {
  assert(Number.isInteger(count) && count >= 1, `Cannot cut a run into ${count} submits`);
  const length = Math.max(1, Math.ceil(steps.length / count));
  return Array.from({ length: Math.ceil(steps.length / length) }, (_, i) => steps.slice(i * length, (i + 1) * length));
}
