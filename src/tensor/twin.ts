/**
 * The twin: the engine that is written to be read. It runs a Program op by op (`twin-ops.ts`) on plain typed arrays, in
 * f32 as the devices store it, or in f64 for gradient checks. It is slow and is the reference for the other engines; no
 * contributor trains on it.
 */
import { assert, present } from "../base/assert.ts";
import type { Engine, Outputs, Plan } from "./engine.ts";
import { elementCount, tensorNamed, type Op, type Program, type Tensor, type TensorId } from "./program.ts";
import { printPlan } from "./print-plan.ts";
import { TWIN_OPS, type Floats, type Memory } from "./twin-ops.ts";

export type Precision = "f32" | "f64";

type Values = Floats | Uint32Array<ArrayBuffer>;

/** An engine on plain arrays. Host reads and writes are f32 whatever the storage; `evaluate` gives access to f64. */
export function createTwin({ precision = "f32" }: { readonly precision?: Precision } = {}): Engine {
  const states = new Map<string, Floats>();
  const state = (name: string): Floats => present(states.get(name), `state tensor "${name}" in any compiled Plan`);
  return {
    kind: "twin",
    device: precision === "f32" ? "CPU twin" : "CPU twin in double precision",
    compile: async (program) => createPlan(program, states, precision),
    writeState: (name, values) => {
      assert(
        values.length === state(name).length,
        `Cannot write state "${name}": got ${values.length} values, need ${state(name).length}`,
      );
      state(name).set(values);
    },
    readState: async (name) => new Float32Array(state(name)),
    [Symbol.dispose]: () => states.clear(),
  };
}

/**
 * Runs `program` once in double precision. `values` gives its inputs and states by name; what is not given is zero.
 * Returns every tensor of the Program by name as it is after the run, views included. For gradient checks.
 */
export function evaluate(
  program: Program,
  values: Readonly<Record<string, ArrayLike<number>>>,
): ReadonlyMap<string, Float64Array | Uint32Array> {
  const arrays = allocate(program, new Map(), "f64");
  for (const [name, given] of Object.entries(values)) {
    const tensor = tensorNamed(program, name);
    assert(
      given.length === elementCount(tensor.shape),
      `Cannot evaluate: got ${given.length} values for "${name}" [${tensor.shape}]`,
    );
    held(arrays, tensor.id).set(given);
  }
  const memory = memoryOver(program, arrays);
  for (const op of program.ops) {
    runOp(op, memory);
  }
  return new Map(
    program.tensors.map((tensor) => [tensor.name, arrays[tensor.id] as Float64Array | Uint32Array] as const),
  );
}

function createPlan(program: Program, states: Map<string, Floats>, precision: Precision): Plan {
  const arrays = allocate(program, states, precision);
  const memory = memoryOver(program, arrays);
  const bytesOf = (wanted: (tensor: Tensor) => boolean): number =>
    program.tensors
      .filter((tensor) => wanted(tensor) && tensor.view === undefined)
      .reduce((sum, tensor) => sum + held(arrays, tensor.id).byteLength, 0);
  const [valueBytes, stateBytes] = [bytesOf(({ role }) => role !== "state"), bytesOf(({ role }) => role === "state")];
  return {
    valueBytes,
    stateBytes,
    describe: () => {
      const steps = program.ops.map((op) => ({ kernel: "twin", ops: [op] }));
      const place = (id: TensorId): string => present(program.tensors[id], `tensor ${id}`).role;
      return printPlan(program, { steps, size: "as many loops", place, stateBytes, valueBytes });
    },
    write: (input, values) => {
      const tensor = tensorNamed(program, input);
      const target = held(arrays, tensor.id);
      assert(tensor.role === "input", `Cannot write "${input}": it is a ${tensor.role}, not an input`);
      assert(
        target.length === values.length,
        `Cannot write "${input}": got ${values.length} values, need ${target.length}`,
      );
      assert(
        (tensor.dtype === "u32") === values instanceof Uint32Array,
        `Cannot write "${input}": its elements are ${tensor.dtype}`,
      );
      target.set(values);
    },
    run: async <Name extends string>(outputs: readonly Name[] = []) => {
      for (const op of program.ops) {
        runOp(op, memory);
      }
      const read = (output: string): Float32Array<ArrayBuffer> => {
        assert(program.outputs.includes(output), `Cannot read "${output}": it is not an output of "${program.name}"`);
        const values = held(arrays, tensorNamed(program, output).id);
        return values instanceof Uint32Array ? new Float32Array(values.slice().buffer) : new Float32Array(values);
      };
      return Object.fromEntries(outputs.map((output) => [output, read(output)])) as Outputs<Name>;
    },
    [Symbol.dispose]: () => {
      arrays.length = 0;
    },
  };
}

/** One array for every tensor: states by name from `states` (made zero when new), views as windows into them. */
function allocate(program: Program, states: Map<string, Floats>, precision: Precision): Values[] {
  const floats = (count: number): Floats => (precision === "f32" ? new Float32Array(count) : new Float64Array(count));
  const arrays: Values[] = [];
  for (const { name, shape, dtype, role, view } of program.tensors) {
    const count = elementCount(shape);
    if (view !== undefined) {
      arrays.push(held(arrays, view.of).subarray(view.offset, view.offset + count));
    } else if (role === "state") {
      const known = states.get(name) ?? floats(count);
      assert(
        known.length === count,
        `Cannot compile "${program.name}": state "${name}" has ${count} elements, and ${known.length} in another Plan`,
      );
      states.set(name, known);
      arrays.push(known);
    } else {
      arrays.push(dtype === "u32" ? new Uint32Array(count) : floats(count));
    }
  }
  return arrays;
}

function held(arrays: readonly Values[], id: TensorId): Values {
  return present(arrays[id], `memory of tensor ${id}`);
}

function memoryOver(program: Program, arrays: readonly Values[]): Memory {
  return {
    floats: (id: TensorId) => held(arrays, id) as Floats,
    words: (id: TensorId) => held(arrays, id) as Uint32Array<ArrayBuffer>,
    shape: (id: TensorId) => present(program.tensors[id], `tensor ${id}`).shape,
  };
}

function runOp(op: Op, memory: Memory): void {
  // The table pairs each type with its own op; TypeScript cannot see the pairing through a union.
  const run = TWIN_OPS[op.type] as (op: Op, memory: Memory) => void;
  run(op, memory);
}
