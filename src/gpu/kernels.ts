/**
 * Which dispatches compute each op: a table over all op types, so that a missing kernel is a type error. An entry chooses a
 * rung of the op's ladder, names the bindings in the order of the shader's header, and gives its constants and workgroup
 * count. It allocates nothing; `compile.ts` does. Products, attention and what
 * reduces rows have files of their own: `matmul.ts`, `attention.ts`, `rows.ts`; Muon has `muon.ts`.
 */
import adamw from "../../shaders/adamw.wgsl" with { type: "text" };
import add from "../../shaders/add.wgsl" with { type: "text" };
import embeddingBackward from "../../shaders/embedding-backward.wgsl" with { type: "text" };
import embedding from "../../shaders/embedding.wgsl" with { type: "text" };
import feedback from "../../shaders/feedback.wgsl" with { type: "text" };
import mean from "../../shaders/mean.wgsl" with { type: "text" };
import normPartial from "../../shaders/norm-partial.wgsl" with { type: "text" };
import norm from "../../shaders/norm.wgsl" with { type: "text" };
import pack from "../../shaders/pack.wgsl" with { type: "text" };
import rope from "../../shaders/rope.wgsl" with { type: "text" };
import sum256 from "../../shaders/sum-256.wgsl" with { type: "text" };
import sumRows from "../../shaders/sum-rows.wgsl" with { type: "text" };
import swigluBackward from "../../shaders/swiglu-backward.wgsl" with { type: "text" };
import swiglu from "../../shaders/swiglu.wgsl" with { type: "text" };
import type { Op, OpOf, OpType, TensorId } from "../tensor/program.ts";
import { CHUNK } from "../tensor/slots.ts";
import {
  attentionBackwardDispatches,
  attentionDispatches,
  attentionGuess,
  inBatches,
  type AttentionContext,
  type AttentionRung,
} from "./attention.ts";
import { addend, at, read, share, write, type Binding, type Dispatch } from "./dispatch.ts";
import type { Group } from "./fuse.ts";
import { matmulDispatches, matmulGuess, type MatmulContext, type MatmulForm, type MatmulRung } from "./matmul.ts";
import { mergeDispatches, widthStored } from "./merge.ts";
import { muonDispatches, muonGuess, type MuonRung } from "./muon.ts";
import {
  crossEntropyBackwardDispatch,
  crossEntropyDispatch,
  rmsNormBackwardDispatch,
  rmsNormDispatch,
  type RowContext,
  type RowRung,
} from "./rows.ts";
import { isSplit, splitProduct } from "./split.ts";
import { bool, inValues, narrow, u32, type Access, type Width } from "./shader.ts";

/** Which rung of a ladder to take, and other ways to compute the same. "auto" takes the best known one for the device and the shape. */
export interface KernelChoice {
  readonly matmul: "auto" | MatmulRung;
  readonly attention: "auto" | AttentionRung;
  readonly rows: "auto" | RowRung;
  /** Without it the one that is right for the device. */
  readonly muon?: MuonRung;
  /** Whether several ops may share a dispatch (`fuse.ts`). */
  readonly fusion: "auto" | "none";
  /** How values are kept that may be f16 (`storage.ts`). */
  readonly storage: "f32" | "f16";
  /** The most floating-point operations of one dispatch; without it `DISPATCH_FLOPS_MAX`. */
  readonly flopsMax?: number;
}

/**
 * What was found to be fastest on an adapter: the rung for each form of product, and for attention and the way back through
 * it. What is missing takes the engine's own guess.
 */
export interface Tuning extends Readonly<Partial<Record<MatmulForm, MatmulRung>>> {
  readonly attention?: AttentionRung;
  readonly attentionBackward?: AttentionRung;
}

export interface KernelContext {
  readonly choice: KernelChoice;
  /** The adapter computes on the CPU: barriers are dear, workgroup memory is ordinary memory. */
  readonly software: boolean;
  /** Invocations that a subgroup has at least; 0 if the device has no subgroups. */
  readonly lanesMin: number;
  readonly tuning: Tuning;
  /** The most bytes that one binding may span. */
  readonly bindingBytesMax: number;
  /** The most tensors that ops may have together and share a dispatch; 8 on every device. */
  readonly tensorsMax: number;
  /** The most floating-point operations of one dispatch, where it can be cut. */
  readonly flopsMax: number;
  /** How many elements an elementwise kernel takes at a time; as many as it can where nothing is said. */
  readonly width?: Width | undefined;
  shapeOf(id: TensorId): readonly number[];
  countOf(id: TensorId): number;
  /** Bytes of one element: 2 for an f16 tensor. */
  elementBytes(id: TensorId): number;
}

type Kernel<K extends OpType> = (op: OpOf<K>, context: KernelContext) => Dispatch[];

/** Elements that an invocation adds up for a norm at least, and invocations that do so for one binding at most. */
const NORM_SHARE = 64;
const NORM_OWNERS_MAX = 2 ** 16;

const KERNELS: { readonly [K in OpType]: Kernel<K> } = {
  embedding: (op, context) =>
    rowWindows(op.table, context).map(({ first, rows, within }) => {
      const C = at(context.shapeOf(op.table), 1);
      return {
        kernel: "embedding",
        text: embedding,
        constants: { N: u32(context.countOf(op.tokens)), C: u32(C), FIRST: u32(first), V: u32(rows) },
        bindings: [within(read(op.table)), read(op.tokens), write(op.out)],
        groups: share(context.countOf(op.out), 256),
      };
    }),

  embeddingBackward: (op, context) =>
    rowWindows(op.dtable, context).map(({ first, rows, within }) => {
      const C = at(context.shapeOf(op.dtable), 1);
      const [add, dtable] = [within(addend(op.add)), within(write(op.dtable))];
      return {
        kernel: "embedding-backward",
        text: embeddingBackward,
        constants: { V: u32(rows), C: u32(C), FIRST: u32(first), ADD: bool(op.add !== undefined) },
        bindings: [read(op.dout), read(op.order), read(op.offsets), add, dtable],
        groups: share(rows * C, 256),
      };
    }),

  matmul: (op, context) => {
    const product = (part: OpOf<"matmul">, partShape: (id: TensorId) => readonly number[]): Dispatch =>
      at(matmulDispatches([part], { ...matmulContext(context), shapeOf: partShape }), 0).product;
    if (isSplit(op, context)) {
      return splitProduct(op, { ...context, product });
    }
    const { product: whole, sum } = at(matmulDispatches([op], matmulContext(context), { mayCut: () => true }), 0);
    return sum === undefined ? [whole] : [whole, sum];
  },

  rmsNorm: (op, context) => [rmsNormDispatch(op, rowContext(context))],

  rmsNormBackward: (op, context) => [rmsNormBackwardDispatch(op, rowContext(context))],

  rope: (op, { shapeOf, countOf }) => {
    const [N, C] = [at(shapeOf(op.x), 0), at(shapeOf(op.x), 1)];
    const { time, headDim, base } = op;
    return [
      {
        kernel: "rope",
        text: rope,
        constants: { N: u32(N), C: u32(C), T: u32(time), D: u32(headDim), INVERSE: bool(op.inverse) },
        bindings: [
          { type: "tensor", id: op.x, access: "read", inPlace: true },
          { type: "table", key: `turns ${time} ${headDim} ${base}`, make: () => turns(time, headDim, base) },
          write(op.out),
        ],
        groups: share(countOf(op.x) / 2, 256),
      },
    ];
  },

  attention: (op, context) => {
    const own = attentionContext(context, "attention");
    return inBatches(op, context, (batch) => attentionDispatches({ ...op, batch }, own));
  },
  attentionBackward: (op, context) => {
    const own = attentionContext(context, "attentionBackward");
    return inBatches(op, context, (batch) => attentionBackwardDispatches({ ...op, batch }, own));
  },

  swiglu: (op, context) => {
    const bindings = [addend(op.gate), addend(op.up), write(op.out)];
    return [elementwise({ kernel: "swiglu", text: swiglu, bindings }, context.countOf(op.out), context)];
  },

  swigluBackward: (op, context) => {
    const bindings = [addend(op.gate), addend(op.up), addend(op.dout), write(op.dgate), write(op.dup)];
    const kernel = { kernel: "swiglu-backward", text: swigluBackward, bindings };
    return [elementwise(kernel, context.countOf(op.dout), context)];
  },

  add: (op, context) => {
    const bindings = [addend(op.a), addend(op.b), write(op.out)];
    return [elementwise({ kernel: "add", text: add, bindings }, context.countOf(op.out), context)];
  },

  sumRows: (op, { shapeOf }) => {
    const [M, N] = [at(shapeOf(op.x), 0), at(shapeOf(op.x), 1)];
    return [
      {
        kernel: "sum-rows",
        text: sumRows,
        constants: { M: u32(M), N: u32(N) },
        bindings: [read(op.x), write(op.out)],
        groups: share(N, 32),
      },
    ];
  },

  crossEntropy: (op, context) => [crossEntropyDispatch(op, rowContext(context))],

  crossEntropyBackward: (op, context) => [crossEntropyBackwardDispatch(op, rowContext(context))],

  mean: (op, { countOf }) => [
    {
      kernel: "mean",
      text: `${sum256}\n${mean}`,
      constants: { COUNT: u32(countOf(op.x)) },
      bindings: [read(op.x), write(op.out)],
      groups: 1,
    },
  ],

  norm: (op, context) => {
    const windows = windowsOf(context.countOf(op.x), context.bindingBytesMax);
    const owners = windows.map(({ count }) => 64 * share(Math.min(NORM_OWNERS_MAX, share(count, NORM_SHARE)), 64));
    const total = owners.reduce((sum, count) => sum + count, 0);
    const partials = (access: Access): Binding => ({ type: "scratch", label: "partials", bytes: total * 4, access });
    let first = 0;
    const stages: Dispatch[] = windows.map((window, i) => {
      const own = at(owners, i);
      first += own;
      return {
        kernel: "norm-partial",
        text: normPartial,
        constants: { COUNT: u32(window.count), OWNERS: u32(own), FIRST: u32(first - own) },
        bindings: [{ type: "tensor", id: op.x, access: "read", window }, partials("write")],
        groups: own / 64,
      };
    });
    const last = { COUNT: u32(total) };
    return [
      ...stages,
      {
        kernel: "norm",
        text: `${sum256}\n${norm}`,
        constants: last,
        bindings: [partials("read"), write(op.out)],
        groups: 1,
      },
    ];
  },

  adamw: (op, context) =>
    windowsOf(context.countOf(op.params), context.bindingBytesMax).map((window) => {
      const part = (id: TensorId, access: Access): Binding => ({ type: "tensor", id, access, window });
      const decay = Math.min(window.count, Math.max(0, op.decayCount - window.offset));
      const width = widthFor(window.count, decay);
      const { constants, groups, ...values } = inBlocks(adamw, window.count, width);
      return {
        kernel: "adamw",
        ...values,
        constants: { ...constants, DECAY: u32(decay / width) },
        bindings: [
          part(op.params, "write"),
          part(op.grads, "read"),
          part(op.m, "write"),
          part(op.v, "write"),
          read(op.norm),
          read(op.hyper),
        ],
        groups,
      };
    }),

  muon: (op, { bindingBytesMax, choice, software }) =>
    muonDispatches(op, { bindingBytesMax, rung: choice.muon ?? muonGuess({ software }) }),

  feedback: (op, context) =>
    windowsOf(context.countOf(op.residual), context.bindingBytesMax).map((window) => {
      const part = (id: TensorId, access: Access): Binding => ({ type: "tensor", id, access, window });
      const bindings = [part(op.residual, "write"), part(op.base, "read"), part(op.params, "read"), read(op.scale)];
      return elementwise({ kernel: "feedback", text: feedback, bindings }, window.count, context);
    }),

  pack: (op, { countOf, shapeOf, bindingBytesMax }) => {
    const slot = at(shapeOf(op.slots), 1);
    // 64 chunks, so that windows of slots begin at multiples of 256 bytes, too.
    return windowsOf(countOf(op.residual), bindingBytesMax, 64 * CHUNK).map((window) => {
      const chunks = share(window.count, CHUNK);
      const own = { offset: (window.offset / CHUNK) * slot, count: chunks * slot };
      return {
        kernel: "pack",
        text: pack,
        constants: { COUNT: u32(window.count), KEEP: u32(op.keep), BITS: u32(op.bits), SLOT: u32(slot) },
        bindings: [
          { type: "tensor", id: op.residual, access: "read", window },
          { type: "tensor", id: op.slots, access: "write", window: own },
        ],
        groups: chunks,
      };
    });
  },
};

/** The dispatches of `group`, in order; one, if several ops share it, and one more for the sums of its products that were cut. */
export function dispatchesOf(group: Group, context: KernelContext): Dispatch[] {
  const ops = group.flat();
  const [only] = ops;
  const adapt = (dispatch: Dispatch): Dispatch => narrowed(dispatch, context);
  if (ops.length === 1 && only !== undefined) {
    return dispatchesOfOp(only, context).map(adapt);
  }
  const products = ops.filter((op) => op.type === "matmul");
  const made = new Map<Op, Dispatch>();
  const sums: Dispatch[] = [];
  // What follows a product on the same elements takes as many at a time.
  let width: Width | undefined;
  if (products.length > 0) {
    const beside = group.map(([first]) => first as OpOf<"matmul">);
    // What runs in turn reads what the same invocation has stored, which a cut would not let happen.
    const alone = new Set<Op>(group.filter((strand) => strand.length === 1).flat());
    const mayCut = (op: Op): boolean => alone.has(op);
    const works = matmulDispatches(products, matmulContext(context), { beside, mayCut });
    products.forEach((op, i) => made.set(op, at(works, i).product));
    sums.push(...works.flatMap(({ sum }) => (sum === undefined ? [] : [sum])));
    width = widthStored(at(works, 0).product);
  }
  const dispatchOf = (op: Op): Dispatch => made.get(op) ?? at(dispatchesOfOp(op, { ...context, width }), 0);
  const bound = sums.flatMap(({ bindings }) => bindings).filter(({ type }) => type !== "none").length;
  const together = sums.length > 1 && bound <= context.tensorsMax;
  return [
    mergeDispatches(group.map((strand) => strand.map(dispatchOf).map(adapt))),
    ...(together ? [mergeDispatches(sums.map((sum) => [adapt(sum)]))] : sums.map(adapt)),
  ];
}

/** `dispatch` with a text that fits its f16 tensors. What it does not use goes by the name of what it writes (`merge.ts`). */
function narrowed(dispatch: Dispatch, { elementBytes }: KernelContext): Dispatch {
  const { bindings } = dispatch;
  const isHalf = (binding: Binding): binding is Extract<Binding, { type: "tensor" }> =>
    binding.type === "tensor" && elementBytes(binding.id) === 2;
  const written = bindings.some((binding) => isHalf(binding) && binding.access === "write");
  const indices = bindings.flatMap((binding, i) =>
    isHalf(binding) || (written && binding.type === "none") ? [i] : [],
  );
  return indices.length === 0 ? dispatch : { ...dispatch, text: narrow(dispatch.text, indices) };
}

function dispatchesOfOp(op: Op, context: KernelContext): Dispatch[] {
  // The table pairs each type with its own op; TypeScript cannot see the pairing through a union.
  return (KERNELS[op.type] as (op: Op, context: KernelContext) => Dispatch[])(op, context);
}

function matmulContext(context: KernelContext): MatmulContext {
  const { shapeOf, bindingBytesMax, choice, software, lanesMin, tuning } = context;
  const guess = matmulGuess({ software, lanesMin });
  const rungFor = (form: MatmulForm): MatmulRung =>
    choice.matmul === "auto" ? (tuning[form] ?? guess) : choice.matmul;
  return { shapeOf, bindingBytesMax, lanesMin, rungFor, adapts: choice.matmul === "auto" };
}

function attentionContext(
  { choice, software, lanesMin, tuning }: KernelContext,
  way: "attention" | "attentionBackward",
): AttentionContext {
  const known = tuning[way] ?? attentionGuess({ software, lanesMin }, way);
  const wanted = choice.attention === "auto" ? known : choice.attention;
  return { wanted, lanesMin, size: software ? 16 : 64 };
}

function rowContext({ choice, software, shapeOf }: KernelContext): RowContext {
  return { rung: choice.rows === "auto" ? (software ? "own" : "shared") : choice.rows, shapeOf };
}

function elementwise(
  kernel: Pick<Dispatch, "kernel" | "text" | "bindings">,
  count: number,
  { width = widthFor(count) }: KernelContext,
): Dispatch {
  return { ...kernel, ...inBlocks(kernel.text, count, width) };
}

/** Four elements at a time, if that divides all counts. */
function widthFor(...counts: number[]): Width {
  return counts.every((count) => count % 4 === 0) ? 4 : 1;
}

/** A kernel over `count` elements, `width` at a time, whose workgroups own 1,024 of them. */
function inBlocks(text: string, count: number, width: Width): Pick<Dispatch, "text" | "constants" | "groups"> {
  const constants = { COUNT: u32(count / width), SPAN: u32(1024 / width) };
  return { text: inValues(text, width), constants, groups: share(count, 1024) };
}

/** Cuts a flat tensor of `count` elements into windows that one binding can span; they begin at multiples of `unit`: 256 bytes. */
function windowsOf(count: number, bindingBytesMax: number, unit = 64): { offset: number; count: number }[] {
  const length = Math.floor(bindingBytesMax / (4 * unit)) * unit;
  return Array.from({ length: share(count, length) }, (_, i) => ({
    offset: i * length,
    count: Math.min(length, count - i * length),
  }));
}

interface RowWindow {
  readonly first: number;
  readonly rows: number;
  /** The binding, for these rows only. */
  within(binding: Binding): Binding;
}

/** Cuts a matrix into rows that one binding can span: one window, for the whole, of a matrix that fits. */
function rowWindows(id: TensorId, { shapeOf, bindingBytesMax }: KernelContext): RowWindow[] {
  const [height, width] = [at(shapeOf(id), 0), at(shapeOf(id), 1)];
  if (4 * height * width <= bindingBytesMax) {
    return [{ first: 0, rows: height, within: (binding) => binding }];
  }
  // Multiples of 64 rows begin at multiples of 256 bytes.
  const length = Math.max(1, Math.floor(bindingBytesMax / (256 * width))) * 64;
  return Array.from({ length: share(height, length) }, (_, i) => {
    const rows = Math.min(length, height - i * length);
    const window = { offset: i * length * width, count: rows * width };
    const within = (binding: Binding): Binding => (binding.type === "tensor" ? { ...binding, window } : binding);
    return { first: i * length, rows, within };
  });
}

/** cos and sin of t·base^(−2i/D), [T,D/2] pairs. */
function turns(time: number, headDim: number, base: number): Float32Array<ArrayBuffer> {
  const half = headDim / 2;
  const table = new Float32Array(time * half * 2);
  for (let t = 0; t < time; t += 1) {
    for (let i = 0; i < half; i += 1) {
      const angle = t * base ** (-i / half);
      table[(t * half + i) * 2] = Math.cos(angle);
      table[(t * half + i) * 2 + 1] = Math.sin(angle);
    }
  }
  return table;
}
