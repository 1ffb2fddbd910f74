/** What the self-test must find on a real GPU beyond the small: faults of kernels that only large products and long attention run. */
import { present } from "../../src/base/assert.ts";
import { createGpuEngine } from "../../src/gpu/engine.ts";
import { sizeTests, testSize } from "../../src/gpu/self-test.ts";
import { asRealGpu, changeShaders } from "./disguise.ts";
import { expectCode } from "./run-cases.ts";

interface Fault {
  /** In the texts that it is put into. */
  readonly where: RegExp;
  readonly text: string;
  readonly instead: string;
  /** The op that has to be named, and which of the tests finds it. */
  readonly op: string;
  readonly test: number;
}

const FAULTS: readonly Fault[] = [
  {
    // Small products have tiles of 32.
    where: /^const TILE_M\w* = 64u;$/m,
    text: "p0.x * q0",
    instead: "1.01 * p0.x * q0",
    op: 'op "matmul" (nt, ',
    test: 0,
  },
  {
    // The running maximum of a tile after the first one is taken for that of the tiles before it.
    where: /\bscore3 \+= dot\(/,
    text: "let shrink = exp(top - higher);",
    instead: "let shrink = select(exp(top - higher), 1.0, first > 0u);",
    op: 'op "attention" ("attended", ',
    test: 3,
  },
];

export async function checkSizes(gpu: GPU): Promise<string> {
  using right = await createGpuEngine({ gpu, adapter: await asRealGpu(gpu), tuneMsMax: 0 });
  const begin = performance.now();
  for (const one of sizeTests(64)) {
    await testSize(right, one, 1e-3);
  }
  const details = [`${Math.round(performance.now() - begin)} ms`];
  for (const { where, text, instead, op, test } of FAULTS) {
    const adapter = await asRealGpu(gpu);
    const request = adapter.requestDevice.bind(adapter);
    let changed = 0;
    const requestDevice = async (descriptor?: GPUDeviceDescriptor): Promise<GPUDevice> => {
      const device = await request(descriptor);
      changeShaders(device, (code) => {
        changed += where.test(code) && code.includes(text) ? 1 : 0;
        return where.test(code) ? code.replaceAll(text, instead) : code;
      });
      return device;
    };
    Object.defineProperty(adapter, "requestDevice", { value: requestDevice });
    using engine = await createGpuEngine({ gpu, adapter, tuneMsMax: 0 });
    const refusal = await expectCode("device-wrong", () =>
      testSize(engine, present(sizeTests(64)[test], "test"), 1e-3),
    );
    if (changed === 0 || !refusal.includes(op)) {
      throw new Error(`Changed ${changed} kernels and got: ${refusal}`);
    }
    details.push(refusal);
  }
  return details.join("; ");
}
