/**
 * What the tuner tries candidates on: the largest product of each form that a Program has, its largest attention and the way back
 * through it, each alone in a Program of its own, on numbers from a seed.
 */
import { createRng } from "../base/rng.ts";
import { elementCount, type HeadShape, type Op, type OpOf, type Program } from "../tensor/program.ts";
import { record } from "../tensor/record.ts";
import { ATTENTION_RUNGS, type AttentionRung } from "./attention.ts";
import type { KernelChoice, Tuning } from "./kernels.ts";
import { formOf, isForm, isRung, type MatmulForm, type MatmulRung } from "./matmul.ts";

/** What has a rung of its own. */
export type Subject = MatmulForm | "attention" | "attentionBackward";

export type AnyRung = MatmulRung | AttentionRung;

/** A subject and the binary logarithm of its work, "nn 26": what is fastest for one size need not be so for another. */
export type Trial = `${Subject} ${number}`;

/** The rungs that were begun to be tried, the fastest of them first. */
export type Tried = ReadonlyMap<Trial, readonly AnyRung[]>;

/** What is larger is cut to this: it is read back, and more of the same workgroups tell nothing new. */
const OUTPUT_ELEMENTS_MAX = 2 ** 21;
/**
 * Multiply-adds of one that is cut: nobody knows yet how fast the GPU is, or how bad a candidate. At 50 GFLOP/s they take 11 ms, and one
 * that is eighteen times slower still keeps to the 200 ms that a submit may take. A fast GPU repeats it.
 */
const WORK_MAX = 2 ** 28;
/** Random numbers before the inputs repeat themselves; a prime, so that no two rows or columns are alike. */
const PERIOD = 4093;

export interface Largest {
  readonly trial: Trial;
  readonly work: number;
  /** The op alone. */
  alone(): Program;
}

function subjectOf(op: Op): Subject | undefined {
  switch (op.type) {
    case "matmul":
      return formOf(op);
    case "attention":
    case "attentionBackward":
      return op.type;
    default:
      return undefined;
  }
}

/** `program` with those ops only whose rungs `choice` leaves open. */
export function leftOpen(program: Program, { matmul, attention }: Pick<KernelChoice, "matmul" | "attention">): Program {
  const isOpen = (op: Op): boolean =>
    subjectOf(op) !== undefined && (op.type === "matmul" ? matmul : attention) === "auto";
  return { ...program, ops: program.ops.filter(isOpen) };
}

/** The largest op of each subject, the dearest first. */
export function trialsOf({ tensors, ops }: Program): Largest[] {
  const shape: ShapeOf = (id) => tensors[id]?.shape ?? [];
  const largest = new Map<Subject, Largest>();
  for (const op of ops) {
    const subject = subjectOf(op);
    if (subject === undefined) {
      continue;
    }
    const work = op.type === "matmul" ? workOfProduct(op, shape) : workOfAttention(subject, op as HeadShape & Op);
    if ((largest.get(subject)?.work ?? 0) < work) {
      const alone = (): Program =>
        op.type === "matmul" ? productAlone(op, shape) : attentionAlone(subject, op as HeadShape & Op);
      largest.set(subject, { trial: `${subject} ${Math.round(Math.log2(work))}`, work, alone });
    }
  }
  return [...largest.values()].sort((a, b) => b.work - a.work);
}

export function subjectIn(trial: Trial): Subject {
  return trial.split(" ")[0] as Subject;
}

type ShapeOf = (id: number) => readonly number[];

function workOfProduct(op: OpOf<"matmul">, shape: ShapeOf): number {
  return elementCount(shape(op.out)) * (shape(op.a)[op.transA ? 0 : 1] as number);
}

function productAlone(op: OpOf<"matmul">, shape: ShapeOf): Program {
  const { transA, transB } = op;
  const [m, n] = cut(shape(op.out));
  let k = shape(op.a)[transA ? 0 : 1] as number;
  while (m * n * k > WORK_MAX) {
    k = half(k);
  }
  const r = record(`tuning ${formOf(op)}`);
  r.matmul(r.input("a", transA ? [k, m] : [m, k]), r.input("b", transB ? [n, k] : [k, n]), { transA, transB });
  return r.finish(["product"]);
}

/** Every query sees half of the keys; the way back has five products for the forward's two. */
function workOfAttention(subject: Subject, { batch, time, heads, headDim }: HeadShape): number {
  return batch * time ** 2 * heads * headDim * (subject === "attention" ? 1 : 2.5);
}

/** Of the way back the inputs are made up as well: nothing that it computes depends on them being a forward's outputs. */
function attentionAlone(subject: Subject, op: HeadShape): Program {
  const { heads, kvHeads, headDim } = op;
  let { batch, time } = op;
  const isLarge = (): boolean =>
    batch * time * heads * headDim > OUTPUT_ELEMENTS_MAX || workOfAttention(subject, { ...op, batch, time }) > WORK_MAX;
  while (isLarge() && time > 1) {
    [batch, time] = batch > 1 ? [Math.floor(batch / 2), time] : [1, Math.floor(time / 2)];
  }
  const shape = { batch, time, heads, kvHeads, headDim };
  const [rows, keyRows] = [
    [batch * time, heads * headDim],
    [batch * time, kvHeads * headDim],
  ];
  const r = record(`tuning ${subject}`);
  const [q, k, v] = [r.input("q", rows), r.input("k", keyRows), r.input("v", keyRows)];
  if (subject === "attention") {
    r.attention(q, k, v, shape);
    return r.finish(["attended"]);
  }
  const [out, dout, lse] = [r.input("out", rows), r.input("dout", rows), r.input("lse", [batch * heads * time])];
  const [dq, dk, dv] = [r.value("dq", rows), r.value("dk", keyRows), r.value("dv", keyRows)];
  const delta = r.value("delta", [batch * heads * time]);
  r.push({ type: "attentionBackward", q, k, v, out, lse, dout, delta, dq, dk, dv, ...shape });
  return r.finish(["dq", "dk", "dv"]);
}

/** Half of `length`; what it leaves beyond a multiple of 4 stays. */
function half(length: number): number {
  return Math.floor(length / 8) * 4 + (length % 4);
}

/** `shape` with its longer side halved until it is small enough. */
function cut(shape: readonly number[]): [number, number] {
  let [m, n] = shape as [number, number];
  while (m * n > OUTPUT_ELEMENTS_MAX) {
    [m, n] = m > n ? [half(m), n] : [m, half(n)];
  }
  return [m, n];
}

/** Numbers in [−0.5, 0.5) for each input, the same at every search. */
export function inputsOf({ tensors }: Program): Map<string, Float32Array> {
  const rng = createRng("tuner");
  const block = Float32Array.from({ length: PERIOD }, () => rng.float() - 0.5);
  const inputs = tensors.filter(({ role }) => role === "input");
  return new Map(
    inputs.map(({ name, shape }, which) => {
      const values = new Float32Array(elementCount(shape));
      for (let i = 0; i < values.length; i += 1) {
        values[i] = block[(i + 7 * which) % PERIOD] as number;
      }
      return [name, values];
    }),
  );
}

/** Whether `rung` is one of the ladder of `subject`. */
export function fits(subject: string, rung: unknown): boolean {
  return subject === "attention" || subject === "attentionBackward"
    ? ATTENTION_RUNGS.some((known) => known === rung)
    : isForm(subject) && isRung(rung);
}

/** Undefined if one of `entries` is no subject with a rung of its ladder. */
export function tuningFrom(entries: readonly (readonly [string, unknown])[]): Tuning | undefined {
  return entries.every(([subject, rung]) => fits(subject, rung)) ? (Object.fromEntries(entries) as Tuning) : undefined;
}
