/**
 * Where the tensors of a Program live: states at an address shared by all plans of the engine, inputs and values at an
 * offset in the plan's own block. Values whose lives do not overlap share bytes; a life runs from the op that first writes
 * a value to the last op that touches it, or to the end of the run when the Program names it as an output.
 */
import { assert, present } from "../base/assert.ts";
import {
  baseOf,
  elementCount,
  readsOf,
  writesOf,
  type Program,
  type Tensor,
  type TensorId,
} from "../tensor/program.ts";
import { align, createHeap } from "./heap.ts";

/** An address that is known once the plan's block has been allocated: a region's beginning plus some bytes. */
export type Place =
  | { readonly region: "state"; readonly name: string; readonly offset: number }
  | { readonly region: "values" | "tables" | "packed"; readonly offset: number };

export interface Layout {
  /** By tensor id; undefined for a value that no op touches. */
  readonly places: readonly (Place | undefined)[];
  /** Bytes of inputs and values. */
  readonly valueBytes: number;
  /** Elements of each whole state tensor, by name. */
  readonly states: ReadonlyMap<string, number>;
}

export function layOut(program: Program): Layout {
  const places: (Place | undefined)[] = [];
  const states = new Map<string, number>();
  let inputBytes = 0;
  for (const tensor of program.tensors) {
    if (tensor.view !== undefined) {
      places.push(undefined);
    } else if (tensor.role === "state") {
      places.push({ region: "state", name: tensor.name, offset: 0 });
      states.set(tensor.name, elementCount(tensor.shape));
    } else if (tensor.role === "input") {
      places.push({ region: "values", offset: inputBytes });
      inputBytes += align(bytesOf(tensor));
    } else {
      places.push(undefined);
    }
  }
  const valueBytes = inputBytes + placeValues(program, inputBytes, places);
  for (const { id, view } of program.tensors) {
    const whole = view === undefined ? undefined : places[view.of];
    if (view !== undefined && whole !== undefined) {
      places[id] = { ...whole, offset: whole.offset + 4 * view.offset };
    }
  }
  return { places, valueBytes, states };
}

function bytesOf(tensor: Tensor): number {
  return 4 * elementCount(tensor.shape);
}

/** Fills in the places of values, from offset `begin` of the block on; returns the bytes they need. */
function placeValues(program: Program, begin: number, places: (Place | undefined)[]): number {
  const lastUse = livesOf(program);
  const heap = createHeap(0, Number.MAX_SAFE_INTEGER);
  const dying: TensorId[][] = program.ops.map(() => []);
  let end = 0;
  program.ops.forEach((op, index) => {
    for (const id of writesOf(op).map((written) => baseOf(program, written))) {
      const tensor = present(program.tensors[id], `tensor ${id}`);
      if (tensor.role !== "value" || places[id] !== undefined) {
        continue;
      }
      const offset = present(heap.allocate(bytesOf(tensor)), "address space");
      places[id] = { region: "values", offset: begin + offset };
      end = Math.max(end, offset + align(bytesOf(tensor)));
      dying[present(lastUse[id], "last use")]?.push(id);
    }
    for (const id of dying[index] ?? []) {
      heap.free(present(places[id], "place").offset - begin);
    }
  });
  return end;
}

/** The index of the last op that touches each value; one past the last op for outputs. */
function livesOf(program: Program): (number | undefined)[] {
  const lastUse: (number | undefined)[] = program.tensors.map(() => undefined);
  program.ops.forEach((op, index) => {
    for (const id of readsOf(op).map((read) => baseOf(program, read))) {
      const tensor = present(program.tensors[id], `tensor ${id}`);
      assert(
        tensor.role !== "value" || lastUse[id] !== undefined,
        `Cannot compile "${program.name}": op ${index} (${op.type}) reads "${tensor.name}" before it is written`,
      );
      lastUse[id] = index;
    }
    for (const id of writesOf(op)) {
      lastUse[baseOf(program, id)] = index;
    }
  });
  for (const tensor of program.tensors) {
    const base = baseOf(program, tensor.id);
    if (program.outputs.includes(tensor.name) && lastUse[base] !== undefined) {
      lastUse[base] = program.ops.length;
    }
  }
  return lastUse;
}
