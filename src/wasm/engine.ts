/**
 * The WASM SIMD engine: compiles Programs to plans in the memory of one WebAssembly module (`assembly/`), which then runs a
 * whole training step in one call. Its results are the same bits on every machine, in every runtime and for every number
 * of threads. It imports nothing of any runtime: the entry point brings the module's bytes and, for threads, a `spawn`
 * (`spawn-node.ts`, `spawn-web.ts`). `run` blocks its thread for the length of a step, so in a browser the engine lives in
 * a worker.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import type { Engine, Plan } from "../tensor/engine.ts";
import { elementCount, type Program, type Tensor, type TensorId } from "../tensor/program.ts";
import * as code from "./assembly/opcodes.ts";
import { draft, type Draft, type Word } from "./compile.ts";
import { align, createHeap, HEAP_BYTES_MAX, PAGE_BYTES, type Heap } from "./heap.ts";
import type { SpawnThread } from "./thread.ts";

export type { SpawnThread } from "./thread.ts";

export interface WasmEngineOptions {
  /** `build/heddle-threads.wasm`, or `build/heddle.wasm` for one thread without shared memory. */
  readonly bytes: BufferSource;
  /** Threads that compute, the calling one included. */
  readonly threads?: number;
  /** Needed for more than one thread. */
  readonly spawn?: SpawnThread;
}

/** More threads than this share too little work each. */
export const THREADS_MAX = 64;
/** Low addresses stay free: 0 means "none" in an instruction. */
const HEAP_BEGIN = 1024;
const MEBIBYTE = 1_048_576;

/** The module's exports. */
interface Kernel {
  run(plan: number, threadIndex: number, threadCount: number): number;
  ropeTable(table: number, time: number, width: number, base: number): void;
}

/** Everything that plans of one engine share. */
interface Machine {
  readonly kernel: Kernel;
  readonly memory: WebAssembly.Memory;
  readonly heap: Heap;
  readonly threads: number;
  readonly control: number;
  readonly states: Map<string, { readonly address: number; readonly length: number }>;
  lost: boolean;
  disposed: boolean;
}

/** Throws HeddleError "no-engine" when threads are asked for and the runtime or the module has none. */
export async function createWasmEngine({ bytes, threads = 1, spawn }: WasmEngineOptions): Promise<Engine> {
  assert(
    Number.isInteger(threads) && threads >= 1 && threads <= THREADS_MAX,
    `Cannot create a WASM engine: ${threads} threads is not between 1 and ${THREADS_MAX}`,
  );
  const module = await WebAssembly.compile(bytes);
  const shared = WebAssembly.Module.imports(module).some(({ kind }) => kind === "memory");
  if (threads > 1 && (!shared || spawn === undefined)) {
    throw new HeddleError("no-engine", "WASM threads need the threaded module and a way to start threads");
  }
  if (shared && typeof SharedArrayBuffer === "undefined") {
    throw new HeddleError("no-engine", "WASM threads need SharedArrayBuffer, which this page does not have");
  }
  const imported = shared ? new WebAssembly.Memory({ initial: 1, maximum: 65_536, shared: true }) : undefined;
  const instance = await WebAssembly.instantiate(module, imported === undefined ? {} : { env: { memory: imported } });
  const memory = imported ?? (instance.exports["memory"] as WebAssembly.Memory);
  const heap = createHeap(HEAP_BEGIN, HEAP_BYTES_MAX);
  const control = present(heap.allocate(code.CONTROL_BYTES), "the control block");
  const kernel = instance.exports as unknown as Kernel;
  const machine: Machine = {
    kernel,
    memory,
    heap,
    threads,
    control,
    states: new Map(),
    lost: false,
    disposed: false,
  };
  const workers = await Promise.all(
    Array.from({ length: threads - 1 }, (_, index) =>
      present(spawn, "spawn")({ bytes, memory, control, threadIndex: index + 1, threadCount: threads }),
    ),
  );
  return {
    kind: "wasm",
    device: threads === 1 ? "WASM SIMD, 1 thread" : `WASM SIMD, ${threads} threads`,
    compile: async (program) => compile(machine, program),
    writeState: (name, values) => {
      const state = stateOf(machine, name);
      assert(
        values.length === state.length,
        `Cannot write state "${name}": got ${values.length} elements, need ${state.length}`,
      );
      floats(memory, state.address, state.length).set(values);
    },
    readState: async (name) => {
      const state = stateOf(machine, name);
      return copyOf(memory, state.address, state.length);
    },
    [Symbol.dispose]: () => {
      if (!machine.disposed) {
        machine.disposed = true;
        release(memory, control);
        workers.forEach((worker) => worker.terminate());
      }
    },
  };
}

function stateOf(machine: Machine, name: string): { readonly address: number; readonly length: number } {
  assert(!machine.disposed, `Cannot use state "${name}": the engine has been disposed of`);
  return present(machine.states.get(name), `state "${name}"`);
}

/** Lets spawned threads return from `serve`: a run of plan 0. */
function release(memory: WebAssembly.Memory, control: number): void {
  if (memory.buffer instanceof ArrayBuffer) {
    return;
  }
  const words = new Int32Array(memory.buffer, control, code.CONTROL_BYTES / 4);
  Atomics.store(words, code.CONTROL_PLAN / 4, 0);
  Atomics.add(words, code.CONTROL_EPOCH / 4, 1);
  Atomics.notify(words, code.CONTROL_EPOCH / 4);
}

/** A view, valid until the memory grows. */
function floats(memory: WebAssembly.Memory, address: number, length: number): Float32Array {
  return new Float32Array(memory.buffer, address, length);
}

function copyOf(memory: WebAssembly.Memory, address: number, length: number): Float32Array<ArrayBuffer> {
  const copy = new Float32Array(length);
  copy.set(floats(memory, address, length));
  return copy;
}

function compile(machine: Machine, program: Program): Plan {
  assert(!machine.disposed, `Cannot compile "${program.name}": the engine has been disposed of`);
  const made = draft(program, machine.threads);
  const bases = allocate(machine, program.name, made);
  const { block } = bases;
  writePlan(machine, made, bases);
  for (const { time, headDim, base, offset } of made.tables) {
    machine.kernel.ropeTable(bases.tables + offset, time, headDim, base);
  }
  const { memory } = machine;
  const byName = new Map(program.tensors.map((tensor) => [tensor.name, tensor]));
  const limits = indexLimits(program);
  const addressOf = (tensor: Tensor): number => {
    const place = present(made.layout.places[tensor.id], `the place of "${tensor.name}"`);
    return resolve(machine, bases, place);
  };
  let disposed = false;
  const usable = (action: string): void =>
    assert(!disposed && !machine.disposed, `Cannot ${action}: the plan has been disposed of`);
  return {
    valueBytes: bases.blockBytes,
    stateBytes: [...made.layout.states.values()].reduce((sum, length) => sum + 4 * length, 0),
    write: (input, values) => {
      usable(`write "${input}"`);
      const tensor = byName.get(input);
      assert(tensor?.role === "input", `Cannot write "${input}": "${program.name}" has no such input`);
      const length = elementCount(tensor.shape);
      const type = values instanceof Uint32Array ? "u32" : "f32";
      assert(
        values.length === length && type === tensor.dtype,
        `Cannot write "${input}": got ${values.length} ${type} elements, need ${length} ${tensor.dtype}`,
      );
      checkIndices(input, values, limits.get(tensor.id));
      new (values instanceof Uint32Array ? Uint32Array : Float32Array)(memory.buffer, addressOf(tensor), length).set(
        values,
      );
    },
    run: async () => {
      usable(`run "${program.name}"`);
      if (!machine.lost) {
        machine.lost = machine.kernel.run(block, 0, machine.threads) === code.RUN_LOST;
      }
      if (machine.lost) {
        throw new HeddleError("device-lost", "A thread of the WASM engine has stopped; start it again");
      }
    },
    read: async (output) => {
      usable(`read "${output}"`);
      assert(program.outputs.includes(output), `Cannot read "${output}": "${program.name}" has no such output`);
      const tensor = present(byName.get(output), `tensor "${output}"`);
      return copyOf(memory, addressOf(tensor), elementCount(tensor.shape));
    },
    [Symbol.dispose]: () => {
      if (!disposed) {
        disposed = true;
        machine.heap.free(block);
      }
    },
  };
}

/** Where the parts of a plan's block begin. */
interface Bases {
  readonly block: number;
  readonly blockBytes: number;
  readonly values: number;
  readonly tables: number;
  readonly packed: number;
  readonly threads: number;
}

/** Finds room for the plan's block and for states that no earlier plan has brought; grows the memory. */
function allocate(machine: Machine, name: string, made: Draft): Bases {
  const { heap, states } = machine;
  const values = align(code.PLAN_HEADER_BYTES + made.instructions.length * code.INSTRUCTION_BYTES);
  const tables = values + align(made.layout.valueBytes);
  const packed = tables + made.tableBytes;
  const threads = packed + made.packedBytes;
  const blockBytes = threads + machine.threads * made.threadBytes;
  const fresh: { state: string | undefined; bytes: number }[] = [{ state: undefined, bytes: blockBytes }];
  for (const [state, length] of made.layout.states) {
    const known = states.get(state);
    assert(
      known === undefined || known.length === length,
      `Cannot compile "${name}": state "${state}" has ${known?.length} elements, the program wants ${length}`,
    );
    if (known === undefined) {
      fresh.unshift({ state, bytes: 4 * length });
    }
  }
  const taken: number[] = [];
  const giveUp = (missing: number): never => {
    taken.forEach((address) => heap.free(address));
    const needed = mebibytes(fresh.reduce((sum, { bytes }) => sum + bytes, 0));
    throw new HeddleError(
      "model-too-big",
      `"${name}" needs ${needed} MiB of memory, ${mebibytes(missing)} MiB more than WebAssembly has free`,
    );
  };
  for (const { bytes } of fresh) {
    const address = heap.allocate(bytes);
    if (address === undefined) {
      const rest = fresh.slice(taken.length).reduce((sum, one) => sum + one.bytes, 0);
      return giveUp(rest - heap.freeBytesMax());
    }
    taken.push(address);
  }
  const end = Math.max(...fresh.map(({ bytes }, index) => present(taken[index], "address") + bytes));
  const short = grow(machine.memory, end);
  if (short > 0) {
    return giveUp(short);
  }
  fresh.forEach(({ state, bytes }, index) => {
    const address = present(taken[index], "address");
    if (state !== undefined) {
      states.set(state, { address, length: bytes / 4 });
    }
    new Uint8Array(machine.memory.buffer, address, bytes).fill(0);
  });
  const block = present(taken.at(-1), "the block");
  return {
    block,
    blockBytes,
    values: block + values,
    tables: block + tables,
    packed: block + packed,
    threads: block + threads,
  };
}

function mebibytes(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / MEBIBYTE));
}

/** Grows the memory to `bytes`; returns how many bytes the runtime refused. */
function grow(memory: WebAssembly.Memory, bytes: number): number {
  const pages = Math.ceil((bytes - memory.buffer.byteLength) / PAGE_BYTES);
  if (pages > 0) {
    try {
      memory.grow(pages);
    } catch {
      // The refusal carries no reason worth passing on: the caller says how much is missing.
      return pages * PAGE_BYTES;
    }
  }
  return 0;
}

function resolve(machine: Machine, bases: Bases, word: Word): number {
  if (typeof word === "number") {
    return word;
  }
  return word.region === "state"
    ? present(machine.states.get(word.name), `state "${word.name}"`).address + word.offset
    : bases[word.region] + word.offset;
}

function writePlan(machine: Machine, made: Draft, bases: Bases): void {
  const header = new Uint32Array(machine.memory.buffer, bases.block, code.PLAN_HEADER_BYTES / 4);
  header[code.PLAN_COUNT] = made.instructions.length;
  header[code.PLAN_CONTROL] = machine.control;
  header[code.PLAN_SCRATCH] = bases.threads;
  header[code.PLAN_SCRATCH_BYTES] = made.threadBytes;
  made.instructions.forEach(({ opcode, tiles, words }, index) => {
    const resolved = [opcode, tiles, ...words.map((word) => resolve(machine, bases, word))];
    assert(resolved.length <= code.INSTRUCTION_WORDS, `Cannot write instruction ${index}: ${resolved.length} words`);
    const address = bases.block + code.PLAN_HEADER_BYTES + index * code.INSTRUCTION_BYTES;
    new Uint32Array(machine.memory.buffer, address, resolved.length).set(resolved);
  });
}

/** What the elements of an input that holds indices must stay below, so that no kernel reads beside its tensor. */
function indexLimits(program: Program): Map<TensorId, number> {
  const limits = new Map<TensorId, number>();
  const limit = (id: TensorId, below: number): void => {
    limits.set(id, Math.min(below, limits.get(id) ?? below));
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
