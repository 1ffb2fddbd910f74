/**
 * From a Program to a draft of its plan: the tensors laid out, the instructions of all ops (`emit.ts`) in order, and how much
 * memory they share. Addresses are still places, which `engine.ts` turns into numbers once it has found room.
 */
import { present } from "../base/assert.ts";
import { elementCount, type Program, type TensorId } from "../tensor/program.ts";
import { emitOp } from "./emit.ts";
import { align } from "./heap.ts";
import { layOut, type Layout, type Place } from "./layout.ts";
import type { Instruction, Pen } from "./pen.ts";

export interface RopeTable {
  readonly time: number;
  readonly headDim: number;
  readonly base: number;
  readonly offset: number;
}

export interface Draft {
  readonly layout: Layout;
  readonly instructions: readonly Instruction[];
  readonly tables: readonly RopeTable[];
  readonly tableBytes: number;
  /** Bytes of packed operands, shared by all threads and used anew by each op. */
  readonly packedBytes: number;
  /** Bytes of scratch memory of each thread. */
  readonly threadBytes: number;
}

export function draft(program: Program, threads: number): Draft {
  const layout = layOut(program);
  const instructions: Instruction[] = [];
  const tables: RopeTable[] = [];
  let tableBytes = 0;
  let packedBytes = 0;
  let threadBytes = 0;
  const tensor = (id: TensorId) => present(program.tensors[id], `tensor ${id}`);
  const place = (id: TensorId): Place => present(layout.places[id], `the place of "${tensor(id).name}"`);
  const pen: Pen = {
    threads,
    place,
    placeOrZero: (id) => (id === undefined ? 0 : place(id)),
    shape: (id) => {
      const [rows, columns] = tensor(id).shape;
      return [present(rows, "rows"), present(columns, `second dimension of "${tensor(id).name}"`)];
    },
    count: (id) => elementCount(tensor(id).shape),
    emit: (opcode, tiles, words) => instructions.push({ opcode, tiles, words }),
    table: ({ time, headDim, base }) => {
      const known = tables.find((one) => one.time === time && one.headDim === headDim && one.base === base);
      const offset = known?.offset ?? tableBytes;
      if (known === undefined) {
        tables.push({ time, headDim, base, offset });
        tableBytes += align(4 * time * headDim);
      }
      return { region: "tables", offset };
    },
    need: ({ packed = 0, thread = 0 }) => {
      packedBytes = Math.max(packedBytes, align(packed));
      threadBytes = Math.max(threadBytes, align(thread));
    },
  };
  for (const op of program.ops) {
    emitOp(pen, op);
  }
  return { layout, instructions, tables, tableBytes, packedBytes, threadBytes };
}
