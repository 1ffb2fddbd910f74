/**
 * The memory that plans of one engine share, and the module that computes in it: makes both, finds room for plans and
 * states, grows, and writes drafted plans as numbers. `engine.ts` wraps it in the Engine contract.
 */
import { assert, HeddleError, present } from "../base/assert.ts";
import * as code from "./assembly/opcodes.ts";
import type { Draft } from "./compile.ts";
import { align, createHeap, PAGE_BYTES, type Heap } from "./heap.ts";
import type { Word } from "./pen.ts";

/** A 32-bit memory has at most this many pages. */
const PAGES_MAX = 65_536;
/** A runtime that cannot reserve address space for a whole shared memory gets smaller ones to try, down to 512 MiB. */
const SHARED_PAGES = [PAGES_MAX, PAGES_MAX / 2, PAGES_MAX / 4, PAGES_MAX / 8];
const MEBIBYTE = 1_048_576;

/** The module's exports. */
export interface Kernel {
  /** Returns RUN_DONE or RUN_LOST. */
  run(plan: number, threadIndex: number, threadCount: number): number;
  /** The first address that the module does not use itself, never 0, which means "none" in an instruction. */
  heapBegin(): number;
  /** Whether it rounds a multiply-add once, by the example of a number whose square does not fit into f32. */
  fuses(x: number): number;
  ropeTable(table: number, time: number, width: number, base: number): void;
}

export interface Machine {
  /** Null once the engine has been disposed of, so that nothing keeps the memory alive. */
  live: { readonly kernel: Kernel; readonly memory: WebAssembly.Memory } | null;
  readonly heap: Heap;
  readonly threads: number;
  /** Address of the control block. */
  readonly control: number;
  readonly states: Map<string, { readonly address: number; readonly length: number }>;
  /** A thread has gone; no plan runs any more. */
  lost: boolean;
}

/** The addresses at which the parts of a plan's block begin. */
export interface Bases {
  readonly block: number;
  readonly blockBytes: number;
  readonly values: number;
  readonly tables: number;
  readonly packed: number;
  readonly threads: number;
}

/** Throws HeddleError "no-engine" when threads are asked for and the runtime or the module has none. */
export async function createMachine(bytes: BufferSource, threads: number): Promise<Machine> {
  const module = await WebAssembly.compile(bytes);
  const shared = WebAssembly.Module.imports(module).some(({ kind }) => kind === "memory");
  if (threads > 1 && !shared) {
    throw new HeddleError("no-engine", "WASM threads need the threaded module");
  }
  if (shared && typeof SharedArrayBuffer === "undefined") {
    throw new HeddleError("no-engine", "WASM threads need SharedArrayBuffer, which is missing here");
  }
  const imported = shared ? createSharedMemory() : undefined;
  const instance = await WebAssembly.instantiate(module, imported === undefined ? {} : { env: imported });
  const memory = imported?.memory ?? (instance.exports["memory"] as WebAssembly.Memory);
  const kernel = instance.exports as unknown as Kernel;
  // The last page stays free, so that the end of every tensor is still an address.
  const heap = createHeap(kernel.heapBegin(), ((imported?.pages ?? PAGES_MAX) - 1) * PAGE_BYTES);
  const control = present(heap.allocate(code.CONTROL_BYTES), "the control block");
  return { live: { kernel, memory }, heap, threads, control, states: new Map(), lost: false };
}

function createSharedMemory(): { memory: WebAssembly.Memory; pages: number } {
  for (const pages of SHARED_PAGES) {
    try {
      return { memory: new WebAssembly.Memory({ initial: 1, maximum: pages, shared: true }), pages };
    } catch (error) {
      if (!(error instanceof RangeError)) {
        throw error;
      }
    }
  }
  throw new HeddleError("no-engine", "This machine gives WASM threads no shared memory");
}

/** The kernel and the memory; throws once the engine has been disposed of. */
export function liveOf(machine: Machine): NonNullable<Machine["live"]> {
  assert(machine.live !== null, "Cannot use the engine: it has been disposed of");
  return machine.live;
}

/** Lets spawned threads return from `serve`, by a run of plan 0, and lets go of the memory. */
export function release(machine: Machine): void {
  const memory = machine.live?.memory;
  machine.live = null;
  if (memory !== undefined && !(memory.buffer instanceof ArrayBuffer)) {
    const words = new Int32Array(memory.buffer, machine.control, code.CONTROL_BYTES / 4);
    Atomics.store(words, code.CONTROL_PLAN / 4, 0);
    Atomics.add(words, code.CONTROL_EPOCH / 4, 1);
    Atomics.notify(words, code.CONTROL_EPOCH / 4);
  }
}

/** A view of `length` floats, valid until the memory grows. */
export function floatsAt(machine: Machine, address: number, length: number): Float32Array {
  return new Float32Array(liveOf(machine).memory.buffer, address, length);
}

/**
 * Finds room for the plan's block and for states that no earlier plan has brought, grows the memory over them and fills
 * them with zeros. Throws HeddleError "model-too-big" and takes nothing when there is no room.
 */
export function allocate(machine: Machine, name: string, made: Draft): Bases {
  const { heap, states } = machine;
  const values = align(code.PLAN_HEADER_BYTES + made.instructions.length * code.INSTRUCTION_BYTES);
  const tables = values + align(made.layout.valueBytes);
  const packed = tables + made.tableBytes;
  const threads = packed + made.packedBytes;
  const blockBytes = threads + machine.threads * made.threadBytes;
  const fresh = [...freshStates(machine, name, made), { state: undefined, bytes: blockBytes }];
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
  const addresses = fresh.map((one, index) => ({ ...one, address: present(taken[index], "address") }));
  const refused = grow(machine, Math.max(...addresses.map(({ address, bytes }) => address + bytes)));
  if (refused > 0) {
    return giveUp(refused);
  }
  for (const { state, address, bytes } of addresses) {
    floatsAt(machine, address, bytes / 4).fill(0);
    if (state !== undefined) {
      states.set(state, { address, length: bytes / 4 });
    }
  }
  const block = present(taken.at(-1), "the block");
  const at = (offset: number): number => block + offset;
  return { block, blockBytes, values: at(values), tables: at(tables), packed: at(packed), threads: at(threads) };
}

/** States of the draft that the engine does not have yet. */
function freshStates(machine: Machine, name: string, made: Draft): { state: string | undefined; bytes: number }[] {
  const fresh: { state: string; bytes: number }[] = [];
  for (const [state, length] of made.layout.states) {
    const known = machine.states.get(state);
    assert(
      known === undefined || known.length === length,
      `Cannot compile "${name}": state "${state}" has ${known?.length} elements, the program wants ${length}`,
    );
    if (known === undefined) {
      fresh.push({ state, bytes: 4 * length });
    }
  }
  return fresh;
}

function mebibytes(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / MEBIBYTE));
}

/** Grows the memory to `bytes`; returns how many bytes the runtime refused. */
function grow(machine: Machine, bytes: number): number {
  const { memory } = liveOf(machine);
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

/** The number that stands for a word once room has been found. */
export function resolve(machine: Machine, bases: Bases, word: Word): number {
  if (typeof word === "number") {
    return word;
  }
  return word.region === "state"
    ? present(machine.states.get(word.name), `state "${word.name}"`).address + word.offset
    : bases[word.region] + word.offset;
}

/** Writes header, instructions and tables of a plan. */
export function writePlan(machine: Machine, made: Draft, bases: Bases): void {
  const { kernel, memory } = liveOf(machine);
  const header = new Uint32Array(memory.buffer, bases.block, code.PLAN_HEADER_BYTES / 4);
  header[code.PLAN_COUNT] = made.instructions.length;
  header[code.PLAN_CONTROL] = machine.control;
  header[code.PLAN_SCRATCH] = bases.threads;
  header[code.PLAN_SCRATCH_BYTES] = made.threadBytes;
  made.instructions.forEach(({ opcode, tiles, words }, index) => {
    const resolved = [opcode, tiles, ...words.map((word) => resolve(machine, bases, word))];
    assert(resolved.length <= code.INSTRUCTION_WORDS, `Cannot write instruction ${index}: ${resolved.length} words`);
    const address = bases.block + code.PLAN_HEADER_BYTES + index * code.INSTRUCTION_BYTES;
    new Uint32Array(memory.buffer, address, resolved.length).set(resolved);
  });
  for (const { time, headDim, base, offset } of made.tables) {
    kernel.ropeTable(bases.tables + offset, time, headDim, base);
  }
}
