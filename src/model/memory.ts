/**
 * How much device memory a Program needs, before anything is allocated: for the sentence that refuses a model that is too
 * big, and for choosing a batch.
 */
import {
  baseOf,
  elementCount,
  readsOf,
  writesOf,
  type Program,
  type Tensor,
  type TensorId,
} from "../tensor/program.ts";

export interface MemoryNeed {
  /** States: parameters, gradients, moments. */
  readonly stateBytes: number;
  /** Inputs, and the largest sum of values that live at one time: the least that any reuse of memory can reach. */
  readonly valueBytes: number;
  /** The largest single tensor, which has to fit one buffer; engines cut what one binding cannot span. */
  readonly largestBytes: number;
}

/**
 * The memory that `program` needs at least, where `elementBytes` tells how tensors are kept. A value lives from the op that
 * writes it to the last op that reads it.
 */
export function memoryOf(program: Program, elementBytes: (id: TensorId) => number = () => 4): MemoryNeed {
  const bytesOf = ({ id, shape }: Tensor): number => elementCount(shape) * elementBytes(id);
  const whole = program.tensors.filter(({ view }) => view === undefined);
  const sum = (tensors: readonly Tensor[]): number => tensors.reduce((bytes, tensor) => bytes + bytesOf(tensor), 0);
  const inputBytes = sum(whole.filter(({ role }) => role === "input"));
  const last = new Map<number, number>();
  program.ops.forEach((op, i) => [...readsOf(op), ...writesOf(op)].forEach((id) => last.set(baseOf(program, id), i)));
  for (const { id, name } of program.tensors) {
    if (program.outputs.includes(name)) {
      last.set(baseOf(program, id), program.ops.length);
    }
  }
  const live = new Map<number, Tensor>();
  let peakBytes = 0;
  program.ops.forEach((op, i) => {
    for (const tensor of writesOf(op).map((id) => program.tensors[baseOf(program, id)])) {
      if (tensor?.role === "value") {
        live.set(tensor.id, tensor);
      }
    }
    peakBytes = Math.max(peakBytes, sum([...live.values()]));
    for (const id of live.keys()) {
      if ((last.get(id) ?? i) <= i) {
        live.delete(id);
      }
    }
  });
  return {
    stateBytes: sum(whole.filter(({ role }) => role === "state")),
    valueBytes: inputBytes + peakBytes,
    largestBytes: Math.max(...whole.map(bytesOf)),
  };
}
