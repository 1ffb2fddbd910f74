/**
 * What an op asks of a machine, by arithmetic: floating-point operations (a multiply-add is two, a root or an exponential one)
 * and the least bytes that have to move, each element that is read or written once. Engines may do more, never less.
 */
import { present } from "../base/assert.ts";
import { elementCount, gramSide, MUON_TURNS, readsOf, writesOf } from "./program.ts";
import type { HeadShape, MatrixPlace, Op, Program, TensorId } from "./program.ts";

export interface Cost {
  readonly flops: number;
  readonly bytes: number;
}

/** `elementBytes` tells how an engine keeps a tensor. */
export function costOf(program: Program, op: Op, elementBytes: (id: TensorId) => number = () => 4): Cost {
  const shapeOf = (id: TensorId): readonly number[] => present(program.tensors[id], `tensor ${id}`).shape;
  const count = (id: TensorId): number => elementCount(shapeOf(id));
  const ids = new Set([...readsOf(op), ...writesOf(op)]);
  // In place, an element is read and written.
  const inPlace = writesOf(op).filter((id) => readsOf(op).includes(id));
  const all = [...ids, ...inPlace].reduce((sum, id) => sum + elementBytes(id) * count(id), 0);
  // Only the rows that tokens name are read of a table.
  const bytes = op.type === "embedding" ? all - 4 * count(op.table) + 4 * count(op.out) : all;
  return { flops: flopsOf(op, shapeOf), bytes };
}

/** The floating-point operations of `op`, whose tensors have the shapes that `shapeOf` tells. */
export function flopsOf(op: Op, shapeOf: (id: TensorId) => readonly number[]): number {
  const count = (id: TensorId): number => elementCount(shapeOf(id));
  switch (op.type) {
    case "embedding":
      return 0;
    case "embeddingBackward":
      return count(op.dout) + (op.add === undefined ? 0 : count(op.dtable));
    case "matmul": {
      const inner = present(shapeOf(op.a)[op.transA ? 0 : 1], "inner dimension");
      const sums = [op.add, op.bias].filter((id) => id !== undefined).length;
      return count(op.out) * (2 * inner + sums);
    }
    case "rmsNorm":
      return 4 * count(op.x) + 3 * count(op.rstd);
    case "rmsNormBackward":
      return (op.add === undefined ? 12 : 13) * count(op.x);
    case "rope":
      return 3 * count(op.x);
    case "attention":
      return scores(op) * (4 * op.headDim + 5);
    case "attentionBackward":
      return scores(op) * (10 * op.headDim + 5) + 2 * count(op.dout);
    case "swiglu":
      return 5 * count(op.out);
    case "swigluBackward":
      return 10 * count(op.dout);
    case "add":
      return count(op.out);
    case "sumRows":
      return count(op.x);
    case "crossEntropy":
      return 4 * count(op.logits);
    case "crossEntropyBackward":
      return 6 * count(op.logits);
    case "mean":
      return count(op.x);
    case "norm":
      return 2 * count(op.x);
    case "adamw":
      return 16 * count(op.params);
    case "muon":
      return op.matrices.reduce((sum, matrix) => sum + orthogonalising(matrix), 0);
    case "feedback":
      return 3 * count(op.residual);
    case "pack":
      return 0;
    default:
      return op satisfies never;
  }
}

function orthogonalising(matrix: MatrixPlace): number {
  const [short, long] = [gramSide(matrix), Math.max(matrix.rows, matrix.columns)];
  const turn = 4 * short * short * long + 2 * short ** 3 + 3 * short * short;
  return MUON_TURNS * turn + 14 * short * long;
}

/** Pairs of a query and a key that it sees. */
function scores({ batch, time, heads }: HeadShape): number {
  return (batch * heads * time * (time + 1)) / 2;
}
