/** Our engines as contenders: as contributors use them, and on WASM the exact one, too, whose bits are the same everywhere. */
import { initialParameters } from "../../src/model/layout.ts";
import { createTrainer } from "../../src/model/trainer.ts";
import { createGpuEngine } from "../../src/gpu/engine.ts";
import type { Engine, Plan } from "../../src/tensor/engine.ts";
import type { Program } from "../../src/tensor/program.ts";
import { record } from "../../src/tensor/record.ts";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import type { Contender, Ready, Surroundings } from "./contender.ts";
import {
  attentionOperands,
  batchOf,
  LOSSES,
  operand,
  type AttentionWork,
  type MatmulWork,
  type StepWork,
  type Work,
} from "./works.ts";

export const OURS = "heddle";
export const OURS_EXACT = "heddle exact";

export function openOurs({ backend, lastDevice, syncWith }: Surroundings): Contender[] {
  if (backend.type === "wasm") {
    const opener = (fused: boolean) => async (): Promise<Opened> => ({
      engine: await createWasmEngine({ threads: backend.threads, fused }),
      sync: async () => undefined,
    });
    return [contender(OURS, opener(true)), contender(OURS_EXACT, opener(false))];
  }
  return [
    contender(OURS, async () => {
      const engine = await createGpuEngine({ gpu: navigator.gpu });
      const device = lastDevice();
      return { engine, sync: () => syncWith(device) };
    }),
  ];
}

function contender(name: string, create: () => Promise<Opened>): Contender {
  return {
    name,
    prepare: async (work: Work): Promise<Ready> => {
      // States belong to an engine, and works differ in theirs.
      const { engine, sync } = await create();
      const ready = work.type === "step" ? await prepareStep(engine, work) : await prepareOp(engine, work, sync);
      return {
        ...ready,
        [Symbol.dispose]: () => {
          ready[Symbol.dispose]();
          engine[Symbol.dispose]();
        },
      };
    },
  };
}

interface Opened {
  readonly engine: Engine;
  readonly sync: () => Promise<void>;
}

async function prepareOp(engine: Engine, work: MatmulWork | AttentionWork, sync: Opened["sync"]): Promise<Ready> {
  const { program, inputs, outputs } = work.type === "matmul" ? recordMatmul(work) : recordAttention(work);
  const plan = await engine.compile(program);
  for (const [name, values] of Object.entries(inputs)) {
    plan.write(name, values);
  }
  return ready(plan, outputs, sync);
}

interface Recorded {
  readonly program: Program;
  readonly inputs: Readonly<Record<string, Float32Array>>;
  /** Names of the work's outputs, by the names they have in the Program. */
  readonly outputs: Readonly<Record<string, string>>;
}

function recordMatmul({ m, n, k, transA = false, transB = false }: MatmulWork): Recorded {
  const r = record("matmul");
  r.matmul(r.input("a", transA ? [k, m] : [m, k]), r.input("b", transB ? [n, k] : [k, n]), { transA, transB });
  const inputs = { a: operand("a", m * k), b: operand("b", k * n) };
  return { program: r.finish(["product"]), inputs, outputs: { product: "c" } };
}

function recordAttention(work: AttentionWork): Recorded {
  const { time, heads, headDim } = work;
  const { dout, ...inputs } = attentionOperands(work);
  const shape = [time, heads * headDim];
  const shapes = { batch: 1, time, heads, kvHeads: heads, headDim };
  const r = record("attention");
  const [q, k, v] = [r.input("q", shape), r.input("k", shape), r.input("v", shape)];
  if (work.way === "forward") {
    r.attention(q, k, v, shapes);
    return { program: r.finish(["attended"]), inputs, outputs: { attended: "out" } };
  }
  const [out, lse] = [r.value("out", shape), r.value("lse", [heads * time])];
  r.push({ type: "attention", q, k, v, out, lse, ...shapes });
  const [dq, dk, dv] = [r.value("dq", shape), r.value("dk", shape), r.value("dv", shape)];
  const delta = r.value("delta", [heads * time]);
  const gradient = r.input("dout", shape);
  r.push({ type: "attentionBackward", q, k, v, out, lse, dout: gradient, delta, dq, dk, dv, ...shapes });
  const program = r.finish(["dq", "dk", "dv"]);
  return { program, inputs: { ...inputs, dout }, outputs: { dq: "dq", dk: "dk", dv: "dv" } };
}

async function prepareStep(engine: Engine, work: StepWork): Promise<Ready> {
  const trainer = await createTrainer(engine, work);
  trainer.load(initialParameters(work.model));
  const batch = batchOf(work);
  const losses: number[] = [];
  const run = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i += 1) {
      losses.push((await trainer.step(batch)).loss);
    }
  };
  return {
    run,
    outputs: async () => {
      await run(LOSSES - losses.length);
      return { losses: Float32Array.from(losses.slice(0, LOSSES)) };
    },
    [Symbol.dispose]: () => trainer[Symbol.dispose](),
  };
}

/** Losses of the first steps on `engine`, for others to agree with. */
export async function firstLosses(engine: Engine, work: StepWork): Promise<number[]> {
  using steps = await prepareStep(engine, work);
  return [...((await steps.outputs())["losses"] ?? [])];
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
