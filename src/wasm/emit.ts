/**
 * The instructions of each op, for the interpreter in `assembly/index.ts` (`assembly/opcodes.ts` lists their words). Most ops
 * are one instruction; products get their right operand packed first, and sums over everything are finished by a second
 * instruction, so that a barrier lies between. How ops are cut into tiles is decided here and changes speed only.
 */
import type { HeadShape, Op, OpOf, TensorId } from "../tensor/program.ts";
import * as code from "./assembly/opcodes.ts";
import { emitNormOf, emitProduct } from "./emit-linear.ts";
import { emitMuon } from "./emit-muon.ts";
import { align } from "./heap.ts";
import type { Place } from "./layout.ts";
import { floatBits, type Pen, type Word } from "./pen.ts";

/** Elements that a tile of a cheap op should have: enough to be worth claiming, few enough to share out. */
const TILE_ELEMENTS = 4096;

/** Appends the instructions of `op`. */
export function emitOp(pen: Pen, op: Op): void {
  switch (op.type) {
    case "embedding":
    case "embeddingBackward":
      return emitEmbedding(pen, op);
    case "matmul":
      return emitMatmul(pen, op);
    case "rmsNorm":
    case "rmsNormBackward":
      return emitNorm(pen, op);
    case "rope":
      return emitRope(pen, op);
    case "attention":
      return emitAttention(pen, op);
    case "attentionBackward":
      return emitAttentionBackward(pen, op);
    case "swiglu":
    case "swigluBackward":
    case "add":
    case "norm":
    case "adamw":
      return emitElements(pen, op);
    case "muon":
      return emitMuon(pen, op);
    case "crossEntropy":
    case "crossEntropyBackward":
      return emitCrossEntropy(pen, op);
    case "sumRows": {
      const [rows, columns] = pen.shape(op.x);
      const words = [pen.place(op.x), pen.place(op.out), rows, columns];
      return pen.emit(code.SUM_ROWS, Math.ceil(columns / code.SUM_COLUMNS), words);
    }
    case "feedback":
    case "pack":
      return emitUpdate(pen, op);
    case "mean":
      return pen.emit(code.MEAN, 1, [pen.place(op.x), pen.place(op.out), pen.count(op.x)]);
    default:
      op satisfies never;
  }
}

/** Rows of a tile of about TILE_ELEMENTS, and how many such tiles there are. */
function cutRows(rows: number, columns: number): { tileRows: number; tiles: number } {
  const tileRows = Math.max(1, Math.floor(TILE_ELEMENTS / columns));
  return { tileRows, tiles: Math.ceil(rows / tileRows) };
}

function emitEmbedding(pen: Pen, op: OpOf<"embedding"> | OpOf<"embeddingBackward">): void {
  if (op.type === "embedding") {
    const rows = pen.count(op.tokens);
    const [, columns] = pen.shape(op.table);
    const { tileRows, tiles } = cutRows(rows, columns);
    const words = [pen.place(op.table), pen.place(op.tokens), pen.place(op.out), rows, columns, tileRows];
    return pen.emit(code.EMBEDDING, tiles, words);
  }
  const [rows, columns] = pen.shape(op.dtable);
  const { tileRows, tiles } = cutRows(rows, columns);
  const { dout, order, offsets, add, dtable } = op;
  pen.emit(code.EMBEDDING_BACKWARD, tiles, [
    pen.place(dout),
    pen.place(order),
    pen.place(offsets),
    pen.placeOrZero(add),
    pen.place(dtable),
    rows,
    columns,
    tileRows,
  ]);
}

function emitMatmul(pen: Pen, op: OpOf<"matmul">): void {
  const [m, n] = pen.shape(op.out);
  const [aRows, aColumns] = pen.shape(op.a);
  const [, bColumns] = pen.shape(op.b);
  emitProduct(pen, {
    a: { place: pen.place(op.a), columns: aColumns, transposed: op.transA },
    b: { place: pen.place(op.b), columns: bColumns, transposed: op.transB },
    out: pen.place(op.out),
    sizes: [m, n, op.transA ? aRows : aColumns],
    add: pen.placeOrZero(op.add),
    bias: pen.placeOrZero(op.bias),
  });
}

function emitNorm(pen: Pen, op: OpOf<"rmsNorm"> | OpOf<"rmsNormBackward">): void {
  const [rows, columns] = pen.shape(op.x);
  const { tileRows, tiles } = cutRows(rows, columns);
  const [x, gain, rstd] = [pen.place(op.x), pen.place(op.gain), pen.place(op.rstd)];
  if (op.type === "rmsNorm") {
    const words = [x, gain, pen.place(op.out), rstd, rows, columns, floatBits(op.eps), tileRows];
    return pen.emit(code.RMS_NORM, tiles, words);
  }
  const dout = pen.place(op.dout);
  pen.emit(code.RMS_NORM_DX, tiles, [
    x,
    gain,
    rstd,
    dout,
    pen.placeOrZero(op.add),
    pen.place(op.dx),
    rows,
    columns,
    tileRows,
  ]);
  const gainTiles = Math.ceil(columns / code.GAIN_COLUMNS);
  pen.emit(code.RMS_NORM_DGAIN, gainTiles, [x, rstd, dout, pen.place(op.dgain), rows, columns]);
}

function emitRope(pen: Pen, op: OpOf<"rope">): void {
  const [rows, columns] = pen.shape(op.x);
  const { tileRows, tiles } = cutRows(rows, columns);
  pen.emit(code.ROPE, tiles, [
    pen.place(op.x),
    pen.place(op.out),
    pen.table(op),
    rows,
    op.time,
    op.headDim,
    columns / op.headDim,
    Number(op.inverse),
    tileRows,
  ]);
}

/** Emits the packing of a tensor's heads as left operands; returns where they are, from `offset` on, and where they end. */
function packHeads(
  pen: Pen,
  packing: {
    readonly src: TensorId;
    readonly shape: { readonly batch: number; readonly time: number; readonly heads: number; readonly headDim: number };
    readonly offset: number;
    readonly rows?: { readonly factor: number };
    readonly columns?: boolean;
  },
): { rows: Word; columns: Word; end: number } {
  const { src, shape, offset, rows, columns = false } = packing;
  const { batch, time, heads, headDim } = shape;
  const matrices = batch * heads;
  const begin = offset + (rows === undefined ? 0 : align(16 * matrices * Math.ceil(time / 4) * headDim));
  const end = begin + (columns ? align(16 * matrices * Math.ceil(headDim / 4) * time) : 0);
  const places = {
    rows: rows === undefined ? 0 : ({ region: "packed", offset } as const),
    columns: columns ? ({ region: "packed", offset: begin } as const) : 0,
  };
  const factor = floatBits(rows?.factor ?? 1);
  pen.emit(code.PACK_HEADS, matrices, [pen.place(src), places.rows, places.columns, time, heads, headDim, factor]);
  pen.need({ packed: end });
  return { ...places, end };
}

/** Offsets into a thread's scratch memory for attention: `panels` of scores, `pairs` of right operands and of sums. */
function attentionScratch(
  pen: Pen,
  { time, headDim }: HeadShape,
  counts: { readonly panels: number; readonly pairs: number },
): number[] {
  const panel = align(4 * code.LANES * Math.ceil(time / 8) * 8);
  const right = counts.panels * panel;
  const operands = align(Math.max(64, 4 * code.LANES * counts.pairs * headDim));
  const sums = right + operands;
  pen.need({ thread: sums + 4 * code.LANES * counts.pairs * Math.ceil(headDim / 4) * 4 });
  return [...Array.from({ length: counts.panels }, (_, index) => index * panel), right, sums];
}

/** Tiles of one head, and what its scores are multiplied by: 1/√D, and the same for exponentials to base 2. */
function attentionFactors({ time, headDim }: HeadShape): { blocks: number; scale: number; factor: number } {
  const scale = 1 / Math.sqrt(headDim);
  return { blocks: Math.ceil(time / (code.LANES * code.PANELS_PER_TILE)), scale, factor: scale * Math.LOG2E };
}

function emitAttention(pen: Pen, op: OpOf<"attention">): void {
  const { batch, time, heads, kvHeads, headDim } = op;
  const shape = { batch, time, heads: kvHeads, headDim };
  const keys = packHeads(pen, { src: op.k, shape, offset: 0, rows: { factor: 1 } });
  const values = packHeads(pen, { src: op.v, shape, offset: keys.end, columns: true });
  const { blocks, factor } = attentionFactors(op);
  pen.emit(code.ATTENTION, batch * heads * blocks, [
    pen.place(op.q),
    keys.rows,
    values.columns,
    pen.place(op.out),
    pen.place(op.lse),
    batch,
    time,
    heads,
    kvHeads,
    headDim,
    floatBits(factor),
    blocks,
    ...attentionScratch(pen, op, { panels: 1, pairs: 1 }),
  ]);
}

function emitAttentionBackward(pen: Pen, op: OpOf<"attentionBackward">): void {
  const { batch, time, heads, kvHeads, headDim } = op;
  const rows = batch * time;
  const { tileRows, tiles } = cutRows(rows, heads * headDim);
  const { blocks, scale, factor } = attentionFactors(op);
  const [q, k, v, dout] = [pen.place(op.q), pen.place(op.k), pen.place(op.v), pen.place(op.dout)];
  const [lse, delta] = [pen.place(op.lse), pen.place(op.delta)];
  const shape = [batch, time, heads, kvHeads, headDim];
  const whole = { batch, time, headDim };
  pen.emit(code.ATTENTION_DELTA, tiles, [dout, pen.place(op.out), delta, rows, time, heads, headDim, tileRows]);

  const few = { ...whole, heads: kvHeads };
  const keys = packHeads(pen, { src: op.k, shape: few, offset: 0, rows: { factor: 1 }, columns: true });
  const values = packHeads(pen, { src: op.v, shape: few, offset: keys.end, rows: { factor: 1 } });
  pen.emit(code.ATTENTION_QUERIES, batch * heads * blocks, [
    q,
    keys.rows,
    keys.columns,
    values.rows,
    dout,
    lse,
    delta,
    pen.place(op.dq),
    ...shape,
    floatBits(factor),
    floatBits(scale),
    blocks,
    ...attentionScratch(pen, op, { panels: 2, pairs: 1 }),
  ]);

  const many = { ...whole, heads };
  const queries = packHeads(pen, { src: op.q, shape: many, offset: 0, rows: { factor }, columns: true });
  const gradients = { src: op.dout, shape: many, offset: queries.end, rows: { factor: 1 }, columns: true };
  const douts = packHeads(pen, gradients);
  pen.emit(code.ATTENTION_KEYS, batch * kvHeads * blocks, [
    k,
    v,
    queries.rows,
    queries.columns,
    douts.rows,
    douts.columns,
    lse,
    delta,
    pen.place(op.dk),
    pen.place(op.dv),
    ...shape,
    floatBits(scale),
    blocks,
    ...attentionScratch(pen, op, { panels: 2, pairs: 2 }),
  ]);
}

type ElementOp = OpOf<"swiglu"> | OpOf<"swigluBackward"> | OpOf<"add"> | OpOf<"norm"> | OpOf<"adamw">;

function emitElements(pen: Pen, op: ElementOp): void {
  const tilesOf = (count: number): number => Math.ceil(count / code.BLOCK);
  const places = (...ids: TensorId[]): Place[] => ids.map((id) => pen.place(id));
  switch (op.type) {
    case "swiglu": {
      const count = pen.count(op.out);
      return pen.emit(code.SWIGLU, tilesOf(count), [...places(op.gate, op.up, op.out), count]);
    }
    case "swigluBackward": {
      const count = pen.count(op.dout);
      const { gate, up, dout, dgate, dup } = op;
      return pen.emit(code.SWIGLU_BACKWARD, tilesOf(count), [...places(gate, up, dout, dgate, dup), count]);
    }
    case "add": {
      const count = pen.count(op.out);
      return pen.emit(code.ADD, tilesOf(count), [...places(op.a, op.b, op.out), count]);
    }
    case "norm": {
      return emitNormOf(pen, pen.place(op.x), pen.count(op.x), pen.place(op.out));
    }
    case "adamw": {
      const count = pen.count(op.params);
      const { params, grads, m, v, norm, hyper, decayCount } = op;
      return pen.emit(code.ADAMW, tilesOf(count), [...places(params, grads, m, v, norm, hyper), count, decayCount]);
    }
    default:
      op satisfies never;
  }
}

function emitCrossEntropy(pen: Pen, op: OpOf<"crossEntropy"> | OpOf<"crossEntropyBackward">): void {
  const [rows, columns] = pen.shape(op.logits);
  const { tileRows, tiles } = cutRows(rows, columns);
  const [logits, targets] = [pen.place(op.logits), pen.place(op.targets)];
  if (op.type === "crossEntropyBackward") {
    const words = [logits, targets, pen.place(op.dlogits), rows, columns, tileRows, op.count];
    return pen.emit(code.CROSS_ENTROPY_BACKWARD, tiles, words);
  }
  pen.emit(code.CROSS_ENTROPY, tiles, [logits, targets, pen.place(op.losses), rows, columns, tileRows]);
}

function emitUpdate(pen: Pen, op: OpOf<"feedback"> | OpOf<"pack">): void {
  const count = pen.count(op.residual);
  if (op.type === "feedback") {
    const words = [pen.place(op.residual), pen.place(op.base), pen.place(op.params), pen.place(op.scale), count];
    return pen.emit(code.FEEDBACK, Math.ceil(count / code.BLOCK), words);
  }
  const [chunks, slotWords] = pen.shape(op.slots);
  const words = [pen.place(op.residual), pen.place(op.slots), count, op.keep, slotWords, op.bits];
  pen.emit(code.PACK_CHUNK, chunks, words);
  pen.need({ thread: code.PACK_BYTES });
}
