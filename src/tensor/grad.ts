/**
 * Reverse-mode differentiation of a Program: another Program that goes on from the given one with the backward ops, by one
 * rule for each differentiable op (a missing rule is a type error). Values are written once, so a gradient may be shared
 * without a copy: a residual `add` costs no op. A tensor that is used several times collects its gradient through the
 * `add` fields of the fused backward ops where they have one, and through an `add` op otherwise; the last of them writes
 * straight to its place. The order of the ops, and with it every sum, follows from the Program alone.
 */
import { assert, present } from "../base/assert.ts";
import {
  elementCount,
  readsOf,
  tensorNamed,
  writesOf,
  type Op,
  type OpOf,
  type Program,
  type Tensor,
  type TensorId,
} from "./program.ts";
import { record, type Recorder } from "./record.ts";

export type DifferentiableOpType =
  | "embedding"
  | "matmul"
  | "rmsNorm"
  | "rope"
  | "attention"
  | "swiglu"
  | "add"
  | "crossEntropy"
  | "mean";

export interface GradOptions {
  /** Name of a mean of crossEntropy's `losses`; its own gradient is 1. */
  readonly loss: string;
}

export interface StateNames {
  /** The state tensor whose views are differentiated, and the one of the same shape that receives their gradients. */
  readonly params?: string;
  readonly grads?: string;
}

/** What a rule may use while it records the backward of one op. */
interface Backward {
  readonly recorder: Recorder;
  /** The gradient of the op's differentiable output. */
  gradient(of: TensorId): TensorId;
  /** Whether anybody asks for the gradient of `of`: whether it depends on a parameter. */
  wants(of: TensorId): boolean;
  /** Where an op with an `add` field writes its share of the gradient of `of`, and what it adds to it. */
  fused(of: TensorId): { out: TensorId; add?: TensorId };
  /** The same for an op without one; if there is something to add, an `add` op follows the rule. */
  plain(of: TensorId): TensorId;
  /** The gradient of `of` gets a share that exists already. */
  shared(of: TensorId, share: TensorId): void;
  /** Row order and run offsets of a tensor of tokens, as inputs "order" and "offsets". */
  sorted(tokens: TensorId, vocabulary: number): { order: TensorId; offsets: TensorId };
}

/** `from` is the output whose gradient comes in, `through` are the inputs that it flows on to, in `back`'s order. */
interface Rule<K extends DifferentiableOpType> {
  readonly from: keyof OpOf<K>;
  readonly through: readonly (keyof OpOf<K>)[];
  back(op: OpOf<K>, backward: Backward): void;
}

const RULES: { readonly [K in DifferentiableOpType]: Rule<K> } = {
  embedding: {
    from: "out",
    through: ["table"],
    back: ({ table, tokens, out }, { recorder, gradient, sorted, fused }) => {
      const vocabulary = present(recorder.shapeOf(table)[0], "vocabulary");
      const { out: dtable, ...add } = fused(table);
      const type = "embeddingBackward";
      recorder.push({ type, dout: gradient(out), ...sorted(tokens, vocabulary), ...add, dtable });
    },
  },
  matmul: {
    from: "out",
    through: ["a", "b", "add", "bias"],
    back: ({ a, b, transA, transB, add, bias, out }, { recorder, gradient, wants, fused, plain, shared }) => {
      const dout = gradient(out);
      if (add !== undefined) {
        shared(add, dout);
      }
      if (bias !== undefined && wants(bias)) {
        recorder.sumRows(dout, plain(bias));
      }
      if (wants(a)) {
        const [left, right] = transA ? [b, dout] : [dout, b];
        recorder.matmul(left, right, { transA: transA && transB, transB: transA || !transB, ...fused(a) });
      }
      if (wants(b)) {
        const [left, right] = transB ? [dout, a] : [a, dout];
        recorder.matmul(left, right, { transA: transB || !transA, transB: transB && transA, ...fused(b) });
      }
    },
  },
  rmsNorm: {
    from: "out",
    through: ["x", "gain"],
    back: ({ x, gain, rstd, out }, { recorder, gradient, fused, plain }) => {
      const { out: dx, ...add } = fused(x);
      const dgain = plain(gain);
      recorder.push({ type: "rmsNormBackward", x, gain, rstd, dout: gradient(out), ...add, dx, dgain });
    },
  },
  rope: {
    from: "out",
    through: ["x"],
    back: (op, { recorder, gradient, plain }) => {
      recorder.push({ ...op, x: gradient(op.out), inverse: !op.inverse, out: plain(op.x) });
    },
  },
  attention: {
    from: "out",
    through: ["q", "k", "v"],
    back: (op, { recorder, gradient, plain }) => {
      const delta = recorder.value("delta", recorder.shapeOf(op.lse));
      const [dq, dk, dv] = [plain(op.q), plain(op.k), plain(op.v)];
      recorder.push({ ...op, type: "attentionBackward", dout: gradient(op.out), delta, dq, dk, dv });
    },
  },
  swiglu: {
    from: "out",
    through: ["gate", "up"],
    back: ({ gate, up, out }, { recorder, gradient, plain }) => {
      const [dgate, dup] = [plain(gate), plain(up)];
      recorder.push({ type: "swigluBackward", gate, up, dout: gradient(out), dgate, dup });
    },
  },
  add: {
    from: "out",
    through: ["a", "b"],
    back: ({ a, b, out }, { gradient, shared }) => {
      shared(a, gradient(out));
      shared(b, gradient(out));
    },
  },
  crossEntropy: {
    from: "losses",
    through: ["logits"],
    back: ({ logits, targets, losses }, { recorder, gradient, plain }) => {
      const [count, own] = [losses, gradient(losses)].map((id) => elementCount(recorder.shapeOf(id))) as [
        number,
        number,
      ];
      assert(own === 1, "Cannot differentiate: losses may go into their mean only");
      recorder.push({ type: "crossEntropyBackward", logits, targets, count, dlogits: plain(logits) });
    },
  },
  mean: {
    from: "out",
    through: ["x"],
    // The gradient of each element is that of the mean, which is 1, over their number: crossEntropyBackward divides.
    back: ({ x, out }, { gradient, shared }) => shared(x, gradient(out)),
  },
};

/**
 * Goes on from `program` with the gradients of `loss`: the gradient of every view into `params` that the loss depends on is
 * written to the view "d" + its name of `grads`, at the same offset, anew in every run; the rest of `grads` stays zero.
 * Adds inputs "order" [N] and "offsets" [V+1] u32 (`sortTokens`) when an embedding is differentiated. Outputs stay the
 * same. Throws when an op on the way has no rule.
 */
export function grad(program: Program, { loss, ...states }: GradOptions & StateNames): Program {
  const id = tensorNamed(program, loss).id;
  // The loss stands for its own gradient, which is 1 and which nobody reads.
  return gradFrom(program, new Map([[id, id]]), states);
}

/**
 * The same from gradients that exist already: `seeds` names the gradient of each tensor where the walk back begins. The
 * seed of a parameter is added to what the walk finds; where it finds nothing, the seed is all there is.
 */
export function gradFrom(
  program: Program,
  seeds: ReadonlyMap<TensorId, TensorId>,
  { params = "params", grads = "grads" }: StateNames = {},
): Program {
  const recorder = record(program.name, program);
  const base = tensorNamed(program, params);
  const dbase = program.tensors.find(({ name }) => name === grads)?.id ?? recorder.state(grads, base.shape);
  const gradients = new Map(seeds);
  const traced = trace(program, { from: [...seeds.keys()], params: base.id });
  const accounts = { ...traced, recorder, params: base.id, dbase, gradients };
  const { backward, settle } = createBackward(program, accounts);

  for (const op of program.ops.toReversed()) {
    if (!writesOf(op).some((id) => gradients.has(id))) {
      continue;
    }
    const rule = ruleOf(op);
    assert(rule !== undefined, `Cannot differentiate op "${op.type}": there is no rule for it`);
    const side = writesOf(op).find((id) => id !== fieldOf(op, rule.from) && gradients.has(id));
    assert(side === undefined, `Cannot differentiate: the loss depends on a side result of "${op.type}"`);
    assert(op.type !== "mean" || isLosses(program, op.x), "Cannot differentiate the mean of anything but losses");
    rule.back(op as OpOf<DifferentiableOpType>, backward);
    settle();
  }
  return recorder.finish(program.outputs);
}

function isLosses({ ops }: Program, id: TensorId): boolean {
  return ops.some((op) => op.type === "crossEntropy" && op.losses === id);
}

interface Accounts {
  readonly recorder: Recorder;
  /** The state tensor of the parameters, and the one that receives their gradients. */
  readonly params: TensorId;
  readonly dbase: TensorId;
  readonly wanted: ReadonlySet<TensorId>;
  /** How many shares of each tensor's gradient are still to come. */
  readonly shares: Map<TensorId, number>;
  /** The gradient of each tensor so far. */
  readonly gradients: Map<TensorId, TensorId>;
}

/** What rules see of the accounts. `settle` records the additions that the last rule left over. */
function createBackward(
  program: Program,
  { recorder, params, dbase, wanted, shares, gradients }: Accounts,
): { backward: Backward; settle: () => void } {
  const additions: (() => void)[] = [];
  const tensor = (id: TensorId): Tensor => present(program.tensors[id], `tensor ${id}`);
  /** Counts one share of the gradient of `of` as written; true when it was the last one of a parameter. */
  const isFinal = (of: TensorId): boolean => {
    const left = (shares.get(of) ?? 0) - 1;
    shares.set(of, left);
    return left === 0 && isParameter(of);
  };
  const isParameter = (of: TensorId): boolean => tensor(of).view?.of === params;
  /** The window of the gradients' state for parameter `of`: an earlier walk may have made it. */
  const place = ({ name, shape, view }: Tensor): TensorId =>
    program.tensors.find((known) => known.name === `d${name}` && known.view?.of === dbase)?.id ??
    recorder.view(`d${name}`, dbase, view?.offset ?? 0, shape);
  const backward: Backward = {
    recorder,
    wants: (of) => wanted.has(of),
    gradient: (of) => present(gradients.get(of), `gradient of "${tensor(of).name}"`),
    fused: (of) => {
      const before = gradients.get(of);
      const { name, shape } = tensor(of);
      const out = isFinal(of)
        ? place(tensor(of))
        : recorder.value(isParameter(of) ? `d${name}.part` : `d${name}`, shape);
      gradients.set(of, out);
      return before === undefined ? { out } : { out, add: before };
    },
    plain: (of) => {
      const before = gradients.get(of);
      if (before === undefined) {
        return backward.fused(of).out;
      }
      const share = recorder.value("share", tensor(of).shape);
      const sum = backward.fused(of).out;
      additions.push(() => recorder.add(before, share, sum));
      return share;
    },
    shared: (of, share) => {
      if (!wanted.has(of)) {
        return;
      }
      const before = gradients.get(of);
      if (before !== undefined) {
        recorder.add(before, share, backward.fused(of).out);
        return;
      }
      assert(!isFinal(of), `Cannot differentiate: parameter "${tensor(of).name}" is an addend and nothing else`);
      gradients.set(of, share);
    },
    sorted: sortedInputs(program, recorder),
  };
  const settle = (): void => {
    for (const add of additions.splice(0)) {
      add();
    }
  };
  return { backward, settle };
}

/**
 * Which tensors depend on a parameter (`wanted`), and how many shares the gradient of each will have: one for every use on
 * a way from it to where the walk begins.
 */
function trace(
  { tensors, ops }: Program,
  { from, params }: { readonly from: readonly TensorId[]; readonly params: TensorId },
): { wanted: ReadonlySet<TensorId>; shares: Map<TensorId, number> } {
  const wanted = new Set(tensors.filter(({ view }) => view?.of === params).map(({ id }) => id));
  for (const op of ops) {
    const rule = ruleOf(op);
    // An op without a rule passes the wish on, so that the walk back stops at it with a message.
    const through = rule === undefined ? readsOf(op) : inputsOf(op, rule);
    if (through.some((id) => wanted.has(id))) {
      for (const id of rule === undefined ? writesOf(op) : [present(fieldOf(op, rule.from), "output")]) {
        wanted.add(id);
      }
    }
  }
  assert(
    from.some((id) => wanted.has(id)),
    `Cannot differentiate: the loss does not depend on any view of the parameters`,
  );
  const shares = new Map<TensorId, number>();
  const reached = new Set(from);
  for (const op of ops.toReversed()) {
    const rule = ruleOf(op);
    if (rule === undefined || !reached.has(fieldOf(op, rule.from) ?? -1)) {
      continue;
    }
    for (const id of inputsOf(op, rule).filter((input) => wanted.has(input))) {
      reached.add(id);
      shares.set(id, (shares.get(id) ?? 0) + 1);
    }
  }
  return { wanted, shares };
}

/**
 * Makes the inputs "order" and "offsets" when they are first asked for, once for each tensor of tokens, whose name they
 * carry on: those of "tokens.2" are "order.2" and "offsets.2".
 */
function sortedInputs(program: Program, recorder: Recorder): Backward["sorted"] {
  const known = new Map<TensorId, { order: TensorId; offsets: TensorId }>();
  return (tokens, vocabulary) => {
    const { name, shape } = present(program.tensors[tokens], "tokens");
    const found = known.get(tokens) ?? {
      order: recorder.input(name.replace(/^(tokens)?/, "order"), shape, "u32"),
      offsets: recorder.input(name.replace(/^(tokens)?/, "offsets"), [vocabulary + 1], "u32"),
    };
    known.set(tokens, found);
    return found;
  };
}

function ruleOf(op: Op): Rule<DifferentiableOpType> | undefined {
  // The table pairs each type with its own op; TypeScript cannot see the pairing through a union.
  return (RULES as Readonly<Record<string, unknown>>)[op.type] as Rule<DifferentiableOpType> | undefined;
}

function inputsOf(op: Op, rule: Rule<DifferentiableOpType>): TensorId[] {
  return rule.through.map((field) => fieldOf(op, field)).filter((id) => id !== undefined);
}

function fieldOf(op: Op, field: string): TensorId | undefined {
  return (op as unknown as Readonly<Record<string, TensorId | undefined>>)[field];
}
