/**
 * The WASM SIMD engine: compiles Programs to plans in the memory of one WebAssembly module (`assembly/`), which then runs a
 * whole training step in one call. Its results are the same bits on every machine, in every runtime and for every number
 * of threads; fused, on every machine that fuses. It runs in browsers, Deno and Node: bytes and threads come from `module.ts`
 * and `spawn.ts`, or from the caller.
 * `run` blocks its thread for the length of a step, so in a browser the engine belongs in a worker.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import type { Engine, Outputs, Plan } from "../tensor/engine.ts";
import { baseOf, elementCount, type Program, type Tensor, type TensorId } from "../tensor/program.ts";
import { printPlan } from "../tensor/print-plan.ts";
import * as code from "./assembly/opcodes.ts";
import { draft } from "./compile.ts";
import { allocate, createMachine, floatsAt, liveOf, release, resolve, writePlan, type Machine } from "./machine.ts";
import { loadEngine, type EngineModule } from "./module.ts";
import { defaultThreads, spawnThread } from "./spawn.ts";
import type { SpawnThread } from "./thread.ts";

export type { SpawnThread } from "./thread.ts";

export interface WasmEngineOptions {
  /**
   * Threads that compute, the calling one included. Without it as many as suit this machine, or 1 with `bytes` and where the
   * others cannot be started.
   */
  readonly threads?: number;
  /**
   * Products by multiply-adds that round once where this machine has them: 1.1 to 1.4 times as fast, and not the bits of the
   * exact engine, which are the same everywhere. Without it, exact.
   */
  readonly fused?: boolean;
  /**
   * `heddle-threads.wasm`, or `heddle.wasm` for one thread, or the same of `heddle-fused`; without it they are loaded from
   * beside this code.
   */
  readonly bytes?: BufferSource;
  /** Starts a thread; without it a worker. */
  readonly spawn?: SpawnThread;
}

/** With more threads than this, each has too little to do. */
export const THREADS_MAX = 64;
/** Its square has one bit more than f32 has. */
const FUSE_PROBE = 1 + 2 ** -12;

/**
 * Throws HeddleError "no-engine" when threads are asked for and the runtime or the module has none, "unreachable" when the
 * module cannot be loaded.
 */
export async function createWasmEngine(options: WasmEngineOptions = {}): Promise<Engine> {
  try {
    return await startEngine(options);
  } catch (error) {
    const chosenHere = options.threads === undefined && options.bytes === undefined;
    if (!chosenHere || !(error instanceof HeddleError) || error.code !== "no-engine") {
      throw error;
    }
    return startEngine({ ...options, threads: 1 });
  }
}

async function startEngine(options: WasmEngineOptions): Promise<Engine> {
  const { bytes: given, fused = false, spawn = spawnThread } = options;
  const { threads = given === undefined ? defaultThreads() : 1 } = options;
  assert(
    Number.isInteger(threads) && threads >= 1 && threads <= THREADS_MAX,
    `Cannot create a WASM engine: got ${threads} threads, need 1 to ${THREADS_MAX}`,
  );
  if (threads > 1 && typeof document !== "undefined") {
    throw new HeddleError("no-engine", "WASM threads need a worker: a page's main thread must not wait for them");
  }
  const bytes = given ?? (await loadBytes({ shared: threads > 1, fused }));
  const machine = await createMachine(bytes, threads);
  const workers = threads === 1 ? [] : await startThreads(machine, bytes, spawn);
  const stateOf = (name: string) => present(machine.states.get(name), `state "${name}" in any compiled plan`);
  return {
    kind: "wasm",
    device: `WASM SIMD${liveOf(machine).kernel.fuses(FUSE_PROBE) ? ", fused" : ""}, ${threads} thread${threads === 1 ? "" : "s"}`,
    compile: async (program) => compile(machine, program),
    writeState: (name, values) => {
      const { address, length } = stateOf(name);
      assert(values.length === length, `Cannot write state "${name}": got ${values.length} elements, need ${length}`);
      floatsAt(machine, address, length).set(values);
    },
    readState: async (name) => {
      const { address, length } = stateOf(name);
      return copyOf(machine, address, length);
    },
    [Symbol.dispose]: () => {
      release(machine);
      workers.splice(0).forEach((worker) => worker.terminate());
    },
  };
}

/** The fused module where this runtime takes it, else the exact one. */
async function loadBytes(module: EngineModule): Promise<BufferSource> {
  const bytes = await loadEngine(module);
  return !module.fused || WebAssembly.validate(bytes) ? bytes : loadEngine({ ...module, fused: false });
}

type Threads = Awaited<ReturnType<SpawnThread>>[];

/** Starts all threads but the calling one, or none: throws HeddleError "no-engine" when one does not start. */
async function startThreads(machine: Machine, bytes: BufferSource, spawn: SpawnThread): Promise<Threads> {
  const { threads: threadCount, control } = machine;
  const { memory } = liveOf(machine);
  const starts = Array.from({ length: threadCount - 1 }, (_, index) =>
    spawn({ bytes, memory, control, threadIndex: index + 1, threadCount }),
  );
  const started = await Promise.allSettled(starts);
  const workers = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  const failure = started.find((one) => one.status === "rejected");
  if (failure !== undefined) {
    release(machine);
    workers.forEach((worker) => worker.terminate());
    throw new HeddleError("no-engine", "A thread for WASM did not start", { cause: failure.reason });
  }
  return workers;
}

function copyOf(machine: Machine, address: number, length: number): Float32Array<ArrayBuffer> {
  const copy = new Float32Array(length);
  copy.set(floatsAt(machine, address, length));
  return copy;
}

function compile(machine: Machine, program: Program): Plan {
  liveOf(machine);
  const made = draft(program, machine.threads);
  const bases = allocate(machine, program.name, made);
  writePlan(machine, made, bases);
  const byName = new Map(program.tensors.map((tensor) => [tensor.name, tensor]));
  const limits = indexLimits(program);
  const addressOf = (tensor: Tensor): number =>
    resolve(machine, bases, present(made.layout.places[tensor.id], `the place of "${tensor.name}"`));
  const stateBytes = [...made.layout.states.values()].reduce((sum, length) => sum + 4 * length, 0);
  let disposed = false;
  const usable = (action: string): void => assert(!disposed, `Cannot ${action}: the plan has been disposed of`);
  return {
    valueBytes: bases.blockBytes,
    stateBytes,
    describe: () => {
      const steps = program.ops.map((op) => ({ kernel: "wasm", ops: [op] }));
      const place = (id: TensorId): string => {
        const at = made.layout.places[id];
        return at === undefined ? "nowhere" : `${at.region === "state" ? at.name : at.region}+${at.offset}`;
      };
      const size = `${made.instructions.length} instructions`;
      return printPlan(program, { steps, size, place, stateBytes, valueBytes: bases.blockBytes });
    },
    write: (input, values) => {
      usable(`write "${input}"`);
      const tensor = byName.get(input);
      assert(
        tensor?.role === "input" && tensor.view === undefined,
        `Cannot write "${input}": "${program.name}" has no such input`,
      );
      const length = elementCount(tensor.shape);
      const type = values instanceof Uint32Array ? "u32" : "f32";
      assert(
        values.length === length && type === tensor.dtype,
        `Cannot write "${input}": got ${values.length} ${type} elements, need ${length} ${tensor.dtype}`,
      );
      checkIndices(input, values, limits.get(tensor.id));
      const View = type === "u32" ? Uint32Array : Float32Array;
      new View(liveOf(machine).memory.buffer, addressOf(tensor), length).set(values);
    },
    run: async <Name extends string>(outputs: readonly Name[] = []) => {
      usable(`run "${program.name}"`);
      const { kernel } = liveOf(machine);
      if (!machine.lost) {
        // Stays lost when the call below throws: the other threads would wait for this one for ever.
        machine.lost = true;
        machine.lost = kernel.run(bases.block, 0, machine.threads) === code.RUN_LOST;
      }
      if (machine.lost) {
        throw new HeddleError("device-lost", "A thread of the WASM engine has stopped; start it again");
      }
      const read = (output: string): Float32Array<ArrayBuffer> => {
        assert(program.outputs.includes(output), `Cannot read "${output}": it is not an output of "${program.name}"`);
        const tensor = present(byName.get(output), `tensor "${output}"`);
        return copyOf(machine, addressOf(tensor), elementCount(tensor.shape));
      };
      return Object.fromEntries(outputs.map((output) => [output, read(output)])) as Outputs<Name>;
    },
    [Symbol.dispose]: () => {
      if (!disposed) {
        disposed = true;
        machine.heap.free(bases.block);
      }
    },
  };
}

/** What the elements of an input that holds indices must stay below, so that no kernel reads beside its tensor. */
function indexLimits(program: Program): Map<TensorId, number> {
  const limits = new Map<TensorId, number>();
  const limit = (id: TensorId, below: number): void => {
    const base = baseOf(program, id);
    limits.set(base, Math.min(below, limits.get(base) ?? below));
  };
  const length = (id: TensorId, axis: number): number =>
    present(program.tensors[id]?.shape[axis], `dimension ${axis} of tensor ${id}`);
  for (const op of program.ops) {
    if (op.type === "embedding") {
      limit(op.tokens, length(op.table, 0));
    } else if (op.type === "embeddingBackward") {
      limit(op.order, length(op.dout, 0));
      limit(op.offsets, length(op.dout, 0) + 1);
    } else if (op.type === "crossEntropy" || op.type === "crossEntropyBackward") {
      limit(op.targets, length(op.logits, 1));
    }
  }
  return limits;
}

function checkIndices(input: string, values: Float32Array | Uint32Array, limit: number | undefined): void {
  if (limit !== undefined) {
    const wrong = values.find((value) => value >= limit);
    assert(wrong === undefined, `Cannot write "${input}": it holds ${wrong}, and must stay below ${limit}`);
  }
}
