/**
 * The speed that this device reaches in a loop of multiplications and additions (`shaders/peak.wgsl`): what the percentages
 * of the kernel ladder are of. It is measured, not a vendor's figure: no browser tells clock rates or numbers of units.
 */
import peak from "../../shaders/peak.wgsl" with { type: "text" };
import { HeddleError } from "../base/assert.ts";
import { median } from "../base/statistics.ts";
import { openDevice, probeGpu, type OpenDevice } from "./device.ts";
import { specialise, u32, unroll } from "./shader.ts";

export interface Peak {
  /** GFLOP/s of the loop as it is written, one step a turn. Compilers that keep variables in memory are slow here. */
  readonly loopGflops: number;
  /** GFLOP/s with 16 steps in each turn: the most that was reached. */
  readonly unrolledGflops: number;
}

const INVOCATIONS = 65_536;
const CHAINS = 8;
const STEPS_UNROLLED = 16;
/** Steps after which every number has arrived at 1, from at most `INVOCATIONS`. */
const STEPS_MIN = 64;
/** A measurement takes at least this long, and at most twice as long. */
const SAMPLE_MS = 40;
const TIMES_MAX = 2 ** 20;
const ROUNDS = 5;

/** Throws HeddleError "no-engine" without an adapter, "device-wrong" when the loop gives wrong numbers. */
export async function measurePeak(gpu: GPU): Promise<Peak> {
  const found = await probeGpu(gpu);
  if (found === null) {
    throw new HeddleError("no-engine", "Cannot measure the GPU: there is no WebGPU adapter here");
  }
  const open = await openDevice(found.adapter);
  try {
    const loopGflops = await measureLoop(open, 1);
    const unrolledGflops = await measureLoop(open, STEPS_UNROLLED);
    return { loopGflops, unrolledGflops: Math.max(loopGflops, unrolledGflops) };
  } finally {
    open.device.destroy();
  }
}

/** GFLOP/s with `steps` steps in each turn of the loop: the median of some rounds. */
async function measureLoop({ device, watch }: OpenDevice, steps: number): Promise<number> {
  const text = specialise(unroll(peak, { r: steps, c: CHAINS }), { COUNT: u32(INVOCATIONS) });
  const module = device.createShaderModule({ label: "peak", code: text });
  const pipeline = await watch.settle(
    device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } }),
  );
  const { STORAGE, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
  const setting = device.createBuffer({ size: 16, usage: STORAGE | COPY_DST });
  const out = device.createBuffer({ size: INVOCATIONS * 4, usage: STORAGE | COPY_SRC });
  const staging = device.createBuffer({ size: INVOCATIONS * 4, usage: MAP_READ | COPY_DST });
  const entries = [setting, out].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const run = async (times: number): Promise<number> => {
    device.queue.writeBuffer(setting, 0, Float32Array.of(0.5, 0.5, times));
    const begin = performance.now();
    const { done } = watch.scoped("measuring its speed", () => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(Math.ceil(INVOCATIONS / 64));
      pass.end();
      encoder.copyBufferToBuffer(out, 0, staging, 0, INVOCATIONS * 4);
      device.queue.submit([encoder.finish()]);
    });
    await Promise.all([done, watch.settle(staging.mapAsync(GPUMapMode.READ))]);
    const ms = performance.now() - begin;
    const wrong = new Float32Array(staging.getMappedRange()).findIndex((sum) => sum !== 4 * CHAINS);
    staging.unmap();
    if (wrong !== -1) {
      throw new HeddleError("device-wrong", `The GPU computes wrong numbers: sum ${wrong} of its loop is not right`);
    }
    return ms;
  };
  let times = STEPS_MIN / steps;
  await run(times); // pays for what drivers put off until then
  while ((await run(times)) < SAMPLE_MS && times < TIMES_MAX) {
    times *= 2;
  }
  const allMs: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    allMs.push(await run(times));
  }
  return (INVOCATIONS * CHAINS * 4 * 2 * steps * times) / median(allMs) / 1e6;
}
