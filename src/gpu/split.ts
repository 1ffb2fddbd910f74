/**
 * Products of matrices that one binding cannot span: a table of a large vocabulary, its gradient. And products that would
 * hold the screen up for too long. They are cut into products of parts. Rows of a matrix are contiguous, so a part of them is
 * a window of the binding; a part of the columns is copied (`columns.wgsl`) to scratch memory or from it. Sums along a cut
 * inner dimension are added in place, in order. The kernels know nothing of it.
 */
import columns from "../../shaders/columns.wgsl" with { type: "text" };
import { assert } from "../base/assert.ts";
import { flopsOf } from "../tensor/cost.ts";
import { elementCount, type OpOf, type TensorId } from "../tensor/program.ts";
import { at, share, type Binding, type Dispatch } from "./dispatch.ts";
import { u32, type Access } from "./shader.ts";

/** Windows begin at multiples of this many rows: 256 bytes at least, the alignment of bindings; f16 rows are of even length. */
const ROWS_ALIGNMENT = 64;

interface Range {
  readonly first: number;
  readonly count: number;
}

/** A matrix in the op: its id, and the axes along its rows and columns. */
interface Matrix {
  readonly id: TensorId;
  readonly rows: Axis;
  readonly columns: Axis;
}

type Axis = "m" | "n" | "k";

type Cuts = Readonly<Record<Axis, readonly Range[]>>;

/** What splitting needs to know of the device and of the Program. */
export interface SplitContext {
  readonly bindingBytesMax: number;
  /** The most floating-point operations of one dispatch. */
  readonly flopsMax: number;
  shapeOf(id: TensorId): readonly number[];
  /** Bytes of one element. */
  elementBytes(id: TensorId): number;
  /** The dispatch of one product of parts; `shapeOf` knows the parts, whose ids are negative. */
  product(op: OpOf<"matmul">, shapeOf: (id: TensorId) => readonly number[]): Dispatch;
}

/** Whether one of the op's matrices does not fit a binding, or the product takes too long. */
export function isSplit(op: OpOf<"matmul">, context: Omit<SplitContext, "product">): boolean {
  const { bindingBytesMax, flopsMax, shapeOf } = context;
  return flopsOf(op, shapeOf) > flopsMax || matricesOf(op).some(({ id }) => bytesOf(id, context) > bindingBytesMax);
}

/** The dispatches of a product that does not fit, in the order in which they run. */
export function splitProduct(op: OpOf<"matmul">, context: SplitContext): Dispatch[] {
  const cuts = cutsOf(op, context);
  const dispatches: Dispatch[] = [];
  for (const m of cuts.m) {
    for (const n of cuts.n) {
      for (const [turn, k] of cuts.k.entries()) {
        dispatches.push(...partOf(op, { m, n, k }, { cuts, turn, context }));
      }
    }
  }
  return dispatches;
}

/** One product of parts: copies of columns before it, the product, and the copy of its result if that lies in columns. */
function partOf(
  op: OpOf<"matmul">,
  block: Readonly<Record<Axis, Range>>,
  { cuts, turn, context }: { readonly cuts: Cuts; readonly turn: number; readonly context: SplitContext },
): Dispatch[] {
  const [before, after]: [Dispatch[], Dispatch[]] = [[], []];
  const shapes: (readonly number[])[] = [];
  const bindings: Binding[] = [];
  const part = (name: string, matrix: Matrix, access: Access): TensorId => {
    const [rows, across] = [block[matrix.rows], block[matrix.columns]];
    const [, width] = context.shapeOf(matrix.id) as [number, number];
    const whole: Binding = { type: "tensor", id: matrix.id, access, inPlace: name === "add" };
    const cut = cuts[matrix.columns].length > 1;
    const window = { offset: rows.first * width, count: rows.count * width };
    const contiguous: Binding = cuts[matrix.rows].length === 1 ? whole : { ...whole, window };
    // An addend goes where the result does, so that both are one part.
    const label = name === "add" ? "out" : name;
    const scratch = (wanted: Access): Binding => ({
      type: "scratch",
      label,
      bytes: rows.count * across.count * 4,
      access: wanted,
    });
    const size = { rows: rows.count, width: across.count };
    const [far, near] = [
      { binding: contiguous, first: across.first, stride: width },
      { binding: scratch(access === "read" ? "write" : "read"), first: 0, stride: across.count },
    ];
    if (cut && access === "read") {
      before.push(copy(size, far, near));
    } else if (cut && turn === cuts.k.length - 1) {
      after.push(copy(size, near, far));
    }
    shapes.push([rows.count, across.count]);
    bindings.push(cut ? scratch(access) : contiguous);
    return -shapes.length;
  };
  const { a, b, add, out } = matrixRoles(op);
  const ids = { a: part("a", a, "read"), b: part("b", b, "read"), out: part("out", out, "write") };
  const addend = turn > 0 ? ids.out : add === undefined ? undefined : part("add", add, "read");
  // The bias goes into the first part of a sum only.
  let bias: TensorId | undefined;
  if (op.bias !== undefined && turn === 0) {
    const window = { offset: block.n.first, count: block.n.count };
    bindings.push({ type: "tensor", id: op.bias, access: "read", window });
    bias = -shapes.push([block.n.count]);
  }
  const { add: _, bias: __, ...rest } = op;
  const more = { ...(addend === undefined ? {} : { add: addend }), ...(bias === undefined ? {} : { bias }) };
  const dispatch = context.product({ ...rest, ...ids, ...more }, (id) => at(shapes, -id - 1));
  const bound = dispatch.bindings.map((binding) => {
    if (binding.type !== "tensor") {
      return binding;
    }
    const real = at(bindings, -binding.id - 1);
    const inPlace = binding.inPlace === true;
    return real.type === "tensor"
      ? { ...real, access: binding.access, inPlace }
      : scratchAs(real, binding.access, inPlace);
  });
  return [...before, { ...dispatch, bindings: bound }, ...after];
}

function scratchAs(binding: Binding, access: Access, inPlace: boolean): Binding {
  assert(binding.type === "scratch", "Cannot bind a part: it is neither a tensor nor scratch memory");
  return { ...binding, access, inPlace };
}

/** A block of columns: its first element in what is bound, which may be no place for a binding to begin, and how far from row to row. */
interface Side {
  readonly binding: Binding;
  readonly first: number;
  readonly stride: number;
}

function copy(size: { readonly rows: number; readonly width: number }, from: Side, to: Side): Dispatch {
  return {
    kernel: "columns",
    text: columns,
    constants: {
      ROWS: u32(size.rows),
      WIDTH: u32(size.width),
      X0: u32(from.first),
      X: u32(from.stride),
      Y0: u32(to.first),
      Y: u32(to.stride),
    },
    bindings: [from.binding, { ...to.binding, access: "write" } as Binding],
    groups: share(size.rows * size.width, 256),
  };
}

/** How each axis is cut: as little as lets the rows of every matrix that is too large fit, and no part take too long. */
function cutsOf(op: OpOf<"matmul">, context: SplitContext): Cuts {
  const { bindingBytesMax, flopsMax, shapeOf, elementBytes } = context;
  const lengths: Record<Axis, number> = { m: 0, n: 0, k: 0 };
  const most: Record<Axis, number> = { m: Infinity, n: Infinity, k: Infinity };
  for (const { id, rows, columns: across } of matricesOf(op)) {
    const [height, width] = shapeOf(id) as [number, number];
    [lengths[rows], lengths[across]] = [height, width];
    if (bytesOf(id, context) > bindingBytesMax) {
      most[rows] = Math.min(most[rows], inWindows(bindingBytesMax / (elementBytes(id) * width)));
    }
  }
  // Along the rows of a: they need no copy, nor do those of the result, or of b where its rows are summed up as well.
  const { rows } = matrixRoles(op).a;
  most[rows] = Math.min(most[rows], inWindows((lengths[rows] * flopsMax) / flopsOf(op, shapeOf)));
  // What is copied is f32, and may be more than the matrix that it is a part of.
  for (const { rows: along, columns: across } of matricesOf(op)) {
    const width = Math.min(most[across], lengths[across]);
    if (width < lengths[across] && 4 * lengths[along] * width > bindingBytesMax) {
      most[along] = Math.min(most[along], inWindows(bindingBytesMax / (4 * width)));
    }
  }
  const cut = (axis: Axis): Range[] => {
    const length = Math.min(most[axis], lengths[axis]);
    return Array.from({ length: share(lengths[axis], length) }, (_, i) => ({
      first: i * length,
      count: Math.min(length, lengths[axis] - i * length),
    }));
  };
  return { m: cut("m"), n: cut("n"), k: cut("k") };
}

/** As many rows, no more than `rows`, as a window may begin at; one window at least. */
function inWindows(rows: number): number {
  return Math.max(1, Math.floor(rows / ROWS_ALIGNMENT)) * ROWS_ALIGNMENT;
}

function matrixRoles({ a, b, add, out, transA, transB }: OpOf<"matmul">): {
  a: Matrix;
  b: Matrix;
  add: Matrix | undefined;
  out: Matrix;
} {
  return {
    a: transA ? { id: a, rows: "k", columns: "m" } : { id: a, rows: "m", columns: "k" },
    b: transB ? { id: b, rows: "n", columns: "k" } : { id: b, rows: "k", columns: "n" },
    add: add === undefined ? undefined : { id: add, rows: "m", columns: "n" },
    out: { id: out, rows: "m", columns: "n" },
  };
}

function matricesOf(op: OpOf<"matmul">): Matrix[] {
  return Object.values(matrixRoles(op)).filter((matrix) => matrix !== undefined);
}

function bytesOf(id: TensorId, { shapeOf, elementBytes }: Omit<SplitContext, "product">): number {
  return elementBytes(id) * elementCount(shapeOf(id));
}
