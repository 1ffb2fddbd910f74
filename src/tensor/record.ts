/**
 * Recording: a `Recorder` appends ops to a Program and checks their shapes as it goes, so that a Program that was recorded
 * is a Program that fits together. A model is a function that calls it (`model/llama.ts`).
 */
import { assert, present } from "../base/assert.ts";
import {
  ALIGNMENT,
  elementCount,
  gramPlaces,
  type DType,
  type HeadShape,
  type Op,
  type OpOf,
  type Program,
  type Role,
  type Tensor,
  type TensorId,
} from "./program.ts";
import { CHUNK, chunksOf, type PackForm, slotWords, VALUE_BITS_MAX } from "./slots.ts";

export interface Recorder {
  input(name: string, shape: readonly number[], dtype?: DType): TensorId;
  state(name: string, shape: readonly number[]): TensorId;
  /** A named window of `shape` into tensor `of`, beginning at element `offset` of it. */
  view(name: string, of: TensorId, offset: number, shape: readonly number[]): TensorId;
  value(name: string, shape: readonly number[], dtype?: DType): TensorId;
  /** Appends an op whose tensors exist; the verbs below do it with shapes derived. */
  push(op: Op): void;
  shapeOf(id: TensorId): readonly number[];

  embedding(table: TensorId, tokens: TensorId): TensorId;
  matmul(
    a: TensorId,
    b: TensorId,
    options?: { transA?: boolean; transB?: boolean; add?: TensorId; bias?: TensorId; out?: TensorId },
  ): TensorId;
  rmsNorm(x: TensorId, gain: TensorId, eps: number): TensorId;
  rope(x: TensorId, options: { time: number; headDim: number; base: number; inverse?: boolean }): TensorId;
  attention(q: TensorId, k: TensorId, v: TensorId, heads: HeadShape): TensorId;
  swiglu(gate: TensorId, up: TensorId): TensorId;
  add(a: TensorId, b: TensorId, out?: TensorId): TensorId;
  /** The sum [N] of the rows of `x` [M,N]. */
  sumRows(x: TensorId, out?: TensorId): TensorId;
  /** The losses [N] of all rows and their mean [1]. */
  crossEntropy(logits: TensorId, targets: TensorId): { losses: TensorId; loss: TensorId };
  mean(x: TensorId, out?: TensorId): TensorId;
  norm(x: TensorId): TensorId;
  /** Muon on the `matrices` of params and m [P]; its workspaces are recorded with it. */
  muon(own: Pick<OpOf<"muon">, "params" | "grads" | "m" | "norm" | "hyper" | "matrices">): void;
  /** residual ← scale · residual + base − params. */
  feedback(residual: TensorId, change: { base: TensorId; params: TensorId; scale: TensorId }): void;
  /** The slots of all chunks of `residual` [P], `keep` entries in each at most. */
  pack(residual: TensorId, form: PackForm): TensorId;

  /** The Program so far; `outputs` may be read by the host after a run. */
  finish(outputs: readonly string[]): Program;
}

/** Starts a new Program, or goes on from `from` (ids keep their meaning). */
export function record(name: string, from?: Program): Recorder {
  const tensors: Tensor[] = from === undefined ? [] : [...from.tensors];
  const ops: Op[] = from === undefined ? [] : [...from.ops];
  const names = new Set(tensors.map((tensor) => tensor.name));

  const create = (
    wanted: string,
    shape: readonly number[],
    dtype: DType,
    role: Role,
    view?: Tensor["view"],
  ): TensorId => {
    assert(
      shape.every((length) => Number.isInteger(length) && length > 0),
      `Cannot record "${wanted}": shape [${shape}] must be positive integers`,
    );
    let unique = wanted;
    for (let i = 2; names.has(unique); i += 1) {
      const free = role === "value" || (role === "input" && view !== undefined);
      assert(free, `Cannot record "${wanted}": the name is taken by an input or a state`);
      unique = `${wanted}.${i}`;
    }
    names.add(unique);
    const id = tensors.length;
    tensors.push(
      view === undefined ? { id, name: unique, shape, dtype, role } : { id, name: unique, shape, dtype, role, view },
    );
    return id;
  };
  const tensor = (id: TensorId): Tensor => present(tensors[id], `tensor ${id}`);
  const shapeOf = (id: TensorId): readonly number[] => tensor(id).shape;
  const value = (label: string, shape: readonly number[], dtype: DType = "f32"): TensorId =>
    create(label, shape, dtype, "value");
  const rows = (id: TensorId): number => present(shapeOf(id)[0], "row count");
  const columns = (id: TensorId): number => {
    const { name: label, shape } = tensor(id);
    assert(shape.length === 2, `Cannot record "${name}": "${label}" is [${shape}], need a matrix of two dimensions`);
    return shape[1] as number;
  };
  const words = (id: TensorId, what: string): void => {
    const { name: label, dtype } = tensor(id);
    assert(dtype === "u32", `Cannot record ${what}: "${label}" holds ${dtype}, need u32`);
  };
  const same = (a: TensorId, b: TensorId, what: string): void => {
    assert(
      elementCount(shapeOf(a)) === elementCount(shapeOf(b)),
      `Cannot record ${what}: shapes [${shapeOf(a)}] and [${shapeOf(b)}] differ, need equal counts`,
    );
  };

  return {
    input: (label, shape, dtype = "f32") => create(label, shape, dtype, "input"),
    state: (label, shape) => create(label, shape, "f32", "state"),
    view: (label, of, offset, shape) => {
      const { name: base, shape: whole, dtype, role, view } = tensor(of);
      assert(
        offset >= 0 && offset + elementCount(shape) <= elementCount(whole),
        `Cannot view "${label}": ${offset} + [${shape}] lies outside "${base}"`,
      );
      const from = view === undefined ? { of, offset } : { of: view.of, offset: view.offset + offset };
      return create(label, shape, dtype, role, from);
    },
    value,
    push: (op) => ops.push(op),
    shapeOf,

    embedding: (table, tokens) => {
      words(tokens, "embedding");
      const out = value("embedded", [rows(tokens), columns(table)]);
      ops.push({ type: "embedding", table, tokens, out });
      return out;
    },
    matmul: (a, b, options = {}) => {
      const { transA = false, transB = false, add, bias } = options;
      const [m, k] = transA ? [columns(a), rows(a)] : [rows(a), columns(a)];
      const [kb, n] = transB ? [columns(b), rows(b)] : [rows(b), columns(b)];
      const given = `[${m},${k}] · [${kb},${n}]`;
      assert(k === kb, `Cannot record matmul: the operands are ${given}, need equal inner dimensions`);
      const out = options.out ?? value("product", [m, n]);
      assert(rows(out) === m && columns(out) === n, `Cannot record matmul: out is [${shapeOf(out)}], need [${m},${n}]`);
      if (add !== undefined) {
        same(add, out, "matmul with an addend");
      }
      if (bias !== undefined) {
        assert(
          elementCount(shapeOf(bias)) === n,
          `Cannot record matmul: bias is [${shapeOf(bias)}], need [${n}], one for each column`,
        );
      }
      const more = { ...(add === undefined ? {} : { add }), ...(bias === undefined ? {} : { bias }) };
      ops.push({ type: "matmul", a, b, transA, transB, ...more, out });
      return out;
    },
    rmsNorm: (x, gain, eps) => {
      assert(
        elementCount(shapeOf(gain)) === columns(x),
        `Cannot record rmsNorm: gain is [${shapeOf(gain)}], need [${columns(x)}]`,
      );
      const out = value("normed", shapeOf(x));
      const rstd = value("rstd", [rows(x)]);
      ops.push({ type: "rmsNorm", x, gain, eps, out, rstd });
      return out;
    },
    rope: (x, { time, headDim, base, inverse = false }) => {
      assert(
        headDim % 2 === 0 && columns(x) % headDim === 0,
        `Cannot record rope: head width ${headDim} must be even and divide ${columns(x)}`,
      );
      assert(rows(x) % time === 0, `Cannot record rope: ${rows(x)} rows are not whole sequences of ${time}`);
      const out = value("turned", shapeOf(x));
      ops.push({ type: "rope", x, time, headDim, base, inverse, out });
      return out;
    },
    attention: (q, k, v, shape) => {
      const { batch, time, heads, kvHeads, headDim } = shape;
      assert(
        heads % kvHeads === 0,
        `Cannot record attention: ${heads} heads are not a multiple of ${kvHeads} key/value heads`,
      );
      assert(
        elementCount(shapeOf(q)) === batch * time * heads * headDim,
        `Cannot record attention: q is [${shapeOf(q)}], need [${batch * time},${heads * headDim}]`,
      );
      assert(
        elementCount(shapeOf(k)) === batch * time * kvHeads * headDim,
        `Cannot record attention: k is [${shapeOf(k)}], need [${batch * time},${kvHeads * headDim}]`,
      );
      same(k, v, "attention");
      const out = value("attended", shapeOf(q));
      const lse = value("lse", [batch * heads * time]);
      ops.push({ type: "attention", q, k, v, out, lse, batch, time, heads, kvHeads, headDim });
      return out;
    },
    swiglu: (gate, up) => {
      same(gate, up, "swiglu");
      const out = value("gated", shapeOf(gate));
      ops.push({ type: "swiglu", gate, up, out });
      return out;
    },
    add: (a, b, into) => {
      same(a, b, "add");
      const out = into ?? value("sum", shapeOf(a));
      ops.push({ type: "add", a, b, out });
      return out;
    },
    sumRows: (x, into) => {
      const out = into ?? value("columns", [columns(x)]);
      assert(
        elementCount(shapeOf(out)) === columns(x),
        `Cannot record sumRows: out is [${shapeOf(out)}], need [${columns(x)}]`,
      );
      ops.push({ type: "sumRows", x, out });
      return out;
    },
    crossEntropy: (logits, targets) => {
      words(targets, "crossEntropy");
      assert(
        rows(logits) === rows(targets),
        `Cannot record crossEntropy: got ${rows(targets)} targets, need one for each of ${rows(logits)} rows`,
      );
      const losses = value("losses", [rows(logits)]);
      ops.push({ type: "crossEntropy", logits, targets, losses });
      const loss = value("loss", [1]);
      ops.push({ type: "mean", x: losses, out: loss });
      return { losses, loss };
    },
    mean: (x, into) => {
      const out = into ?? value("mean", [1]);
      ops.push({ type: "mean", x, out });
      return out;
    },
    norm: (x) => {
      const out = value("norm", [1]);
      ops.push({ type: "norm", x, out });
      return out;
    },
    muon: (own) => {
      const size = elementCount(shapeOf(own.params));
      for (const { offset, rows: high, columns: across } of own.matrices) {
        const fits = high > 0 && across > 0 && offset % ALIGNMENT === 0 && offset + high * across <= size;
        assert(fits, `Cannot record muon: [${high},${across}] at ${offset} is no matrix of ${size} parameters`);
      }
      const { count } = gramPlaces(own.matrices);
      const [gram, mixed] = [value("gram", [count]), value("mixed", [count])];
      ops.push({ type: "muon", ...own, other: value("other", [size]), gram, mixed });
    },
    feedback: (residual, { base, params, scale }) => {
      same(residual, base, "feedback");
      same(residual, params, "feedback");
      ops.push({ type: "feedback", residual, base, params, scale });
    },
    pack: (residual, { keep, bits }) => {
      assert(
        Number.isInteger(keep) && keep >= 1 && keep <= CHUNK,
        `Cannot record pack: keep is ${keep}, need 1 to ${CHUNK}`,
      );
      assert(
        Number.isInteger(bits) && bits >= 1 && bits <= VALUE_BITS_MAX,
        `Cannot record pack: bits is ${bits}, need 1 to ${VALUE_BITS_MAX}`,
      );
      const slots = value("slots", [chunksOf(elementCount(shapeOf(residual))), slotWords({ keep, bits })], "u32");
      ops.push({ type: "pack", residual, keep, bits, slots });
      return slots;
    },
    finish: (outputs) => {
      for (const output of outputs) {
        assert(names.has(output), `Cannot finish "${name}": output "${output}" was not recorded`);
      }
      return { name, tensors: [...tensors], ops: [...ops], outputs: [...outputs] };
    },
  };
}

/** What `embeddingBackward` needs of a batch: row numbers sorted by token (stable), and where each token's run begins. */
export function sortTokens(
  tokens: Uint32Array,
  vocabulary: number,
): { order: Uint32Array<ArrayBuffer>; offsets: Uint32Array<ArrayBuffer> } {
  const offsets = new Uint32Array(vocabulary + 1);
  for (const token of tokens) {
    assert(token < vocabulary, `Cannot sort tokens: token ${token} is outside the vocabulary of ${vocabulary}`);
    offsets[token + 1] = (offsets[token + 1] as number) + 1;
  }
  for (let v = 0; v < vocabulary; v += 1) {
    offsets[v + 1] = (offsets[v + 1] as number) + (offsets[v] as number);
  }
  const next = offsets.slice();
  const order = new Uint32Array(tokens.length);
  for (let n = 0; n < tokens.length; n += 1) {
    const token = tokens[n] as number;
    const at = next[token] as number;
    order[at] = n;
    next[token] = at + 1;
  }
  return { order, offsets };
}
