/**
 * A Plan: a compiled Program that is replayed. A run encodes a fixed list of dispatches into a few compute passes and
 * submits them; it creates no buffer, no bind group and no pipeline. The host may be one run ahead of the device, never
 * more, and every error the device reports comes out of the next `run`. Outputs are copied by the run's last submit and
 * mapped once: a training step whose loss is looked at is one submit and one map.
 */
import { assert, present } from "../base/assert.ts";
import type { Outputs, Pace, Plan, PlanPace } from "../tensor/engine.ts";
import { elementCount, type Program, type Tensor } from "../tensor/program.ts";
import { compileProgram, type RunUnderWay, type Shared, type Step } from "./compile.ts";
import { createStaging, createStagingPool, unload, type Staging } from "./staging.ts";

/** Runs that may be submitted and not yet done. */
const IN_FLIGHT_MAX = 2;

export interface GpuPlan extends Plan {
  /** Dispatches of one run. */
  readonly dispatchCount: number;
  /** Kernels in the order in which a run dispatches them. */
  readonly kernels: readonly string[];
  /** Runs so many times over in one submit, for who times it; 0 times what a submit takes by itself. Resolves when the device is through with it; rejects as `run` does. */
  repeat(times: number): Promise<void>;
}

/**
 * With a `pace` a run is cut into submits, and must be over before the next one begins; without, it is one submit. Between two
 * submits states are half of what they will be: runs and reads take turns, and who writes then has made a mistake.
 */
export async function createPlan(program: Program, shared: Shared, pace?: Pace): Promise<GpuPlan> {
  const { device, watch } = shared.open;
  const { steps, places, nothing, valueBytes, stateBytes, describe, own, free } = await compileProgram(program, shared);
  const beat = pace?.plan(steps.map(({ flops }) => flops));
  let disposed = false;
  const run: RunUnderWay = { program: program.name };
  const fences: Promise<void>[] = [];
  const pool = createStagingPool((outputs) => createStaging(device, program, { places, outputs, own }));
  const usable = (): void => {
    watch.check();
    assert(!disposed, `Cannot use Plan "${program.name}": it was disposed of`);
  };
  /** Resolves when the device is through with `part` and has found no fault with it. */
  const submitPart = (part: readonly Step[], staging?: Staging): Promise<void> => {
    const { value: end, done } = watch.scoped(`running "${program.name}"`, () => {
      if (part.length === 0) {
        submitNothing(device, nothing);
      } else {
        submit(device, part, staging);
      }
      return staging === undefined ? device.queue.onSubmittedWorkDone() : staging.buffer.mapAsync(GPUMapMode.READ);
    });
    const fence = inOrder(done, watch.settle(end)).then(watch.check, (error) => {
      usable(); // a buffer that was destroyed rejects: it goes first why it was
      throw error;
    });
    // Whoever awaits it next sees the failure; until then it must not count as unhandled.
    fence.catch(() => undefined);
    return fence;
  };
  /** Submits all dispatches at the pace given; returns the last submit's fence. */
  const runParts = async (pace: PlanPace, staging: Staging | undefined): Promise<{ readonly fence: Promise<void> }> => {
    for (let from = 0; ;) {
      usable();
      const to = pace.until(from);
      const last = to >= steps.length;
      const fence = submitPart(steps.slice(from, to), last ? staging : undefined);
      await pace.submitted(from, to, fence);
      if (last) {
        return { fence };
      }
      from = to;
    }
  };
  const runPaced: typeof runParts = async (...args) => {
    shared.underWay.add(run);
    try {
      return await shared.inTurn(() => runParts(...args));
    } finally {
      shared.underWay.delete(run);
    }
  };
  const find = (name: string): Tensor =>
    present(
      program.tensors.find((tensor) => tensor.name === name),
      `tensor "${name}" of "${program.name}"`,
    );

  return {
    valueBytes,
    stateBytes,
    describe,
    dispatchCount: steps.length,
    kernels: steps.map(({ kernel }) => kernel),
    write: (input, values) => {
      usable();
      assert(!shared.underWay.has(run), `Cannot write "${input}": the last run is not over`);
      const tensor = find(input);
      const count = elementCount(tensor.shape);
      assert(tensor.role === "input", `Cannot write "${input}": it is a ${tensor.role}, not an input`);
      assert(values.length === count, `Cannot write "${input}": got ${values.length} values, need ${count}`);
      assert(
        values instanceof (tensor.dtype === "u32" ? Uint32Array : Float32Array),
        `Cannot write "${input}": its elements are ${tensor.dtype}`,
      );
      const { buffer } = present(places[tensor.id], `memory of "${input}"`);
      device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    },
    run: async <Name extends string>(outputs: readonly Name[] = []) => {
      usable();
      assert(!shared.underWay.has(run), `Cannot run "${program.name}": its last run is not over`);
      const staging = outputs.length === 0 ? undefined : pool.take(outputs);
      const fence = beat === undefined ? submitPart(steps, staging) : (await runPaced(beat, staging)).fence;
      fences.push(fence);
      while (fences.length >= IN_FLIGHT_MAX) {
        await fences.shift();
      }
      watch.check();
      if (staging === undefined) {
        return {} as Outputs<Name>;
      }
      await fence;
      usable();
      return unload(staging) as Outputs<Name>;
    },
    repeat: async (times) => {
      usable();
      await submitPart(Array.from({ length: times }, () => steps).flat());
    },
    [Symbol.dispose]: () => {
      disposed = true;
      free();
    },
  };
}

/** The first `size` bytes of `from`, as floats. Rejects with the device's failure. */
export async function readBuffer(
  { open: { device, watch } }: Shared,
  from: GPUBuffer,
  size: number,
): Promise<Float32Array<ArrayBuffer>> {
  watch.check();
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
  // Nothing depends on a read: one that there is no memory for leaves the device as it is.
  const {
    value: { staging, end },
    done,
  } = watch.attempt("reading from the GPU", () => {
    const staging = device.createBuffer({ label: "reading", size, usage });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(from, 0, staging, 0, size);
    device.queue.submit([encoder.finish()]);
    return { staging, end: staging.mapAsync(GPUMapMode.READ) };
  });
  try {
    await inOrder(done, watch.settle(end));
    const values = new Float32Array(staging.getMappedRange().slice(0));
    watch.check();
    return values;
  } finally {
    staging.destroy();
  }
}

/** Resolves after both. What the device says of a submit goes first: that nothing can be mapped then is no reason. */
async function inOrder(done: Promise<void>, end: Promise<undefined>): Promise<void> {
  end.catch(() => undefined);
  await done;
  await end;
}

/**
 * One command buffer with one compute pass, and the copies to `staging` after it: WebGPU orders dispatches of a pass by
 * what they read and write.
 */
function submit(device: GPUDevice, steps: readonly Step[], staging: Staging | undefined): void {
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
  for (const { from, offset } of staging?.copies ?? []) {
    encoder.copyBufferToBuffer(from.buffer, from.offset, (staging as Staging).buffer, offset, from.size);
  }
  device.queue.submit([encoder.finish()]);
}

/** What takes no time and still goes the whole way: what has no commands may be answered before it comes to the device. */
function submitNothing(device: GPUDevice, nothing: GPUBuffer): void {
  const encoder = device.createCommandEncoder();
  encoder.clearBuffer(nothing, 0, 4);
  device.queue.submit([encoder.finish()]);
}
