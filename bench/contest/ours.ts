/** Our engines as a contender. */
import { createGpuEngine } from "../../src/gpu/engine.ts";
import type { Engine, Plan } from "../../src/tensor/engine.ts";
import type { Program } from "../../src/tensor/program.ts";
import { record } from "../../src/tensor/record.ts";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import type { Contender, Ready, Surroundings } from "./contender.ts";
import { operand, type MatmulWork, type Work } from "./works.ts";

export async function openOurs(surroundings: Surroundings): Promise<Contender> {
  const { backend, lastDevice, syncWith } = surroundings;
  let engine: Engine;
  let sync = async (): Promise<void> => undefined;
  if (backend.type === "webgpu") {
    engine = await createGpuEngine({ gpu: navigator.gpu });
    const device = lastDevice();
    sync = () => syncWith(device);
  } else {
    engine = await createWasmEngine({ threads: backend.threads });
  }
  return {
    name: "heddle",
    prepare: async (work: Work): Promise<Ready> => {
      const { program, inputs, outputs } = recordWork(work);
      const plan = await engine.compile(program);
      for (const [name, values] of Object.entries(inputs)) {
        plan.write(name, values);
      }
      return ready(plan, outputs, sync);
    },
  };
}

interface Recorded {
  readonly program: Program;
  readonly inputs: Readonly<Record<string, Float32Array>>;
  /** Names of the work's outputs, by the names they have in the Program. */
  readonly outputs: Readonly<Record<string, string>>;
}

function recordWork(work: Work): Recorded {
  switch (work.type) {
    case "matmul":
      return recordMatmul(work);
    default:
      return work.type satisfies never;
  }
}

function recordMatmul({ m, n, k }: MatmulWork): Recorded {
  const r = record("matmul");
  r.matmul(r.input("a", [m, k]), r.input("b", [k, n]));
  const inputs = { a: operand("a", m * k), b: operand("b", k * n) };
  return { program: r.finish(["product"]), inputs, outputs: { product: "c" } };
}

function ready(plan: Plan, names: Recorded["outputs"], sync: () => Promise<void>): Ready {
  return {
    run: async (times) => {
      for (let i = 0; i < times; i += 1) {
        await plan.run();
      }
      await sync();
    },
    outputs: async () => {
      const values = await plan.run(Object.keys(names));
      return Object.fromEntries(Object.entries(names).map(([name, output]) => [output, values[name] as Float32Array]));
    },
    [Symbol.dispose]: () => plan[Symbol.dispose](),
  };
}
