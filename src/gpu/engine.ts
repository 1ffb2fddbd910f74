/**
 * The WebGPU engine: compiles Programs to Plans (`plan.ts`) and keeps what they share: state tensors by name, and pipelines
 * by their WGSL text. It runs wherever there is a `GPU` object: a browser's worker, Deno, Node with Dawn.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import { atOnce, createTurn, type InTurn } from "../base/turn.ts";
import type { Engine, Pace } from "../tensor/engine.ts";
import { elementCount, type Program } from "../tensor/program.ts";
import { attentionCandidates } from "./attention.ts";
import type { Shared } from "./compile.ts";
import { openDevice, probeGpu, type OpenDevice } from "./device.ts";
import type { KernelChoice } from "./kernels.ts";
import { matmulCandidates } from "./matmul.ts";
import { createPlan, readBuffer, type GpuPlan } from "./plan.ts";
import { circumstancesOf, exportTried, importTried } from "./tried.ts";
import { leftOpen, type AnyRung, type Subject } from "./trials.ts";
import { createTuner, tune, type TunerOptions } from "./tuner.ts";

export { probeGpu } from "./device.ts";

const TUNE_MS_MAX = 2_000;

export interface GpuEngineOptions {
  readonly gpu: GPU;
  /** From `probeGpu`; without it the engine asks for one itself. An adapter can be opened once. */
  readonly adapter?: GPUAdapter;
  /**
   * Rungs of the kernel ladders, for tests and tuning; and `storage` "f16", which keeps most of what a Plan holds besides
   * states as f16 (`storage.ts`) and leaves all sums f32. It wants a device with the feature "shader-f16".
   */
  readonly choice?: Partial<KernelChoice>;
  /**
   * What `tuned` of an engine was, to spare the search, or go on with it. It is ignored on another adapter, in another version of
   * the browser and with other kernels.
   */
  readonly tuned?: string;
  /** Gets `tuned` before each candidate runs and after each search, which goes on when it resolves. It must not reject. */
  readonly onTuned?: (tuned: string) => Promise<void>;
  /**
   * How long all calls of `compile` together may look for the fastest products of the forms, and the fastest attention; 0 takes a
   * guess. Without it 2 s on a GPU and 0 on a software adapter, whose guesses are measured and whose runs take too
   * long to compare.
   */
  readonly tuneMsMax?: number;
  /** Makes the search, which times kernels, when nothing else computes; without it at once. */
  readonly inTurn?: InTurn;
  /** Cuts runs into submits and lets the device rest; without it each run is one submit. */
  readonly pace?: Pace;
  /** The most bytes that states and all Plans may take together, what their outputs are read through included: phones kill a tab that takes much. */
  readonly memoryBytesMax?: number;
}

export interface GpuEngine extends Engine {
  readonly kind: "webgpu";
  /** The adapter computes on the CPU; the WASM engine is faster there. */
  readonly software: boolean;
  /** `choice` is for this Plan alone and goes before the engine's. */
  compile(program: Program, choice?: Partial<KernelChoice>): Promise<GpuPlan>;
  /** The kernels that were found to be fastest, as a text for the option of this name; undefined before the search. */
  readonly tuned: string | undefined;
  /** Why the engine can no longer be used, if so. */
  failure(): HeddleError | undefined;
}

interface State {
  readonly buffer: GPUBuffer;
  readonly count: number;
  /** Plans that were compiled with it, and compiles that are under way. */
  users: number;
}

/** Throws HeddleError "no-engine" where there is no adapter, it gives no device, or the device lacks what `choice` needs. */
export async function createGpuEngine({
  gpu,
  adapter,
  choice = {},
  tuned,
  onTuned,
  tuneMsMax,
  inTurn = atOnce,
  pace,
  memoryBytesMax = Infinity,
}: GpuEngineOptions): Promise<GpuEngine> {
  const chosen = adapter ?? (await probeGpu(gpu))?.adapter;
  if (chosen === undefined) {
    throw new HeddleError("no-engine", "This machine offers no WebGPU adapter");
  }
  const open = await openDevice(chosen);
  const { device, watch } = open;
  const states = new Map<string, State>();
  const full: KernelChoice = {
    matmul: "auto",
    attention: "auto",
    rows: "auto",
    fusion: "auto",
    storage: "f32",
    ...choice,
  };
  try {
    checkStorage(full, open);
  } catch (error) {
    device.destroy();
    throw error;
  }
  const shared = {
    ...share(open, states, full, memoryBytesMax),
    inTurn: pace === undefined ? atOnce : createTurn(),
  };
  const here = circumstancesOf(open.identity);
  const candidates = (subject: Subject): readonly AnyRung[] =>
    subject === "attention" || subject === "attentionBackward"
      ? attentionCandidates(open, subject)
      : matmulCandidates(open);
  const tuner = createTuner({
    given: tuned === undefined ? undefined : importTried(tuned, here),
    candidates,
    search: (program, known) => tuneOn(program, shared, { candidates, ...known }),
    msMax: tuneMsMax ?? (open.software ? 0 : TUNE_MS_MAX),
    nowMs: () => performance.now(),
    inTurn,
    onTried: onTuned === undefined ? undefined : (tried) => onTuned(exportTried(tried, here)),
  });
  const compile = async (program: Program, own: Partial<KernelChoice> = {}): Promise<GpuPlan> => {
    const wanted = { ...full, ...own };
    checkStorage(wanted, open);
    await tuner.learn(leftOpen(program, wanted));
    return createPlan(program, { ...shared, choice: wanted, tuning: tuner.tuningFor(program) }, pace);
  };
  const state = (name: string): State => present(states.get(name), `state tensor "${name}" in any compiled Plan`);
  return {
    kind: "webgpu",
    device: open.description,
    software: open.software,
    failure: watch.failure,
    get tuned() {
      const tried = tuner.tried();
      return tried.size === 0 ? undefined : exportTried(tried, here);
    },
    compile,
    writeState: (name, values) => {
      watch.check();
      const { buffer, count } = state(name);
      assert(values.length === count, `Cannot write state "${name}": got ${values.length} values, need ${count}`);
      assert(values instanceof Float32Array, `Cannot write state "${name}": its elements are f32`);
      const [run] = shared.underWay;
      assert(run === undefined, `Cannot write state "${name}": a run of "${run?.program}" is not over`);
      device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    },
    readState: async (name) => {
      watch.check();
      const { buffer, count } = state(name);
      return shared.inTurn(() => readBuffer(shared, buffer, count * 4));
    },
    [Symbol.dispose]: () => {
      for (const { buffer } of states.values()) {
        buffer.destroy();
      }
      states.clear();
      device.destroy();
    },
  };
}

function checkStorage({ storage }: KernelChoice, { f16, description }: OpenDevice): void {
  if (storage === "f16" && !f16) {
    throw new HeddleError("no-engine", `Cannot keep values as f16: the GPU "${description}" has no "shader-f16"`);
  }
}

/** Looks for the fastest kernels on the device itself. */
function tuneOn(
  program: Program,
  shared: Shared,
  options: Pick<TunerOptions, "candidates" | "tried" | "keep" | "msMax">,
): Promise<void> {
  // As a Plan that has this tuning would compile it.
  const choice = { ...shared.choice, matmul: "auto", attention: "auto" } as const;
  return tune(program, {
    ...options,
    compile: (alone, tuning) => createPlan(alone, { ...shared, choice, tuning }),
    usable: () => shared.open.watch.failure() === undefined,
    nowMs: () => performance.now(),
  });
}

/** What the Plans of one engine share. */
function share(open: OpenDevice, states: Map<string, State>, choice: KernelChoice, memoryBytesMax: number): Shared {
  const { device } = open;
  const layouts = new Map<string, GPUBindGroupLayout>();
  const pipelines = new Map<string, Promise<GPUComputePipeline>>();
  const bindGroupLayout = (access: readonly string[]): GPUBindGroupLayout => {
    const key = access.join();
    const layout =
      layouts.get(key) ??
      device.createBindGroupLayout({
        entries: access
          .map((type, binding) => ({
            binding,
            visibility: GPUShaderStage.COMPUTE,
            buffer: { type: type as GPUBufferBindingType },
          }))
          .filter(({ buffer }) => (buffer.type as string) !== ""),
      });
    layouts.set(key, layout);
    return layout;
  };
  const build = (text: string, access: readonly string[], label: string): Promise<GPUComputePipeline> => {
    const layout = device.createPipelineLayout({ bindGroupLayouts: [bindGroupLayout(access)] });
    const module = device.createShaderModule({ label, code: text });
    return device
      .createComputePipelineAsync({ label, layout, compute: { module, entryPoint: "main" } })
      .catch((error) => {
        throw (
          open.watch.failure() ??
          new HeddleError("device-wrong", `The GPU does not compile the kernel "${label}": ${error}`, { cause: error })
        );
      });
  };
  return {
    open,
    choice,
    tuning: {},
    inTurn: atOnce,
    underWay: new Set(),
    memoryBytesMax,
    planBuffers: new Set(),
    bindGroupLayout,
    hasState: (name) => states.has(name),
    stateBytes: () => [...states.values()].reduce((sum, { count }) => sum + count * 4, 0),
    state: ({ name, shape }) => {
      const count = elementCount(shape);
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
      const known = states.get(name) ?? {
        buffer: device.createBuffer({ label: name, size: Math.ceil(count / 4) * 16, usage }),
        count,
        users: 0,
      };
      assert(
        known.count === count,
        `Cannot compile: state "${name}" has ${count} elements, and ${known.count} in another Plan`,
      );
      known.users += 1;
      states.set(name, known);
      return known.buffer;
    },
    release: (name) => {
      const known = present(states.get(name), `state tensor "${name}"`);
      known.users -= 1;
      if (known.users === 0) {
        known.buffer.destroy();
        states.delete(name);
      }
    },
    pipeline: (text, access, kernel) => {
      const pipeline = pipelines.get(text) ?? build(text, access, kernel);
      pipelines.set(text, pipeline);
      return pipeline;
    },
  };
}
