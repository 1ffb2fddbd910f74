/**
 * Which ops of a Program share a dispatch. A dispatch costs the host tens of microseconds and leaves a large GPU half empty
 * when its op is small, so ops that do not wait for each other run beside each other, and sums of products run in turn
 * in one. The Program's meaning stays: only ops between which no third one has to run come together, and what is left
 * is put in an order that respects every read and write. Other engines see nothing of it.
 *
 * The fusions, and why:
 *   products with a common operand, beside   q, k, v and gate, up read the same rows; in the backward a product's two
 *                                            gradients read the same dout
 *   a product and what is added to it, in turn   the gradients of a tensor that several products read: q, k, v and
 *                                            gate, up again; the sum needs memory once
 *   products and an elementwise op on them,  gate, up and SwiGLU; on the way back a product and SwiGLU's gradients: each
 *   in turn                                  invocation goes on with what it has just stored, before it is out of reach
 *   equal turns (rope), beside               queries and keys; their gradients
 */
import { flopsOf } from "../tensor/cost.ts";
import type { Op, OpOf, Program, Tensor, TensorId } from "../tensor/program.ts";
import { baseOf, elementCount, readsOf, renamed, tensorNamed, writesOf } from "../tensor/program.ts";
import { DISPATCH_FLOPS_MAX } from "./dispatch.ts";

/** Ops that share a dispatch: strands run beside each other, the ops of a strand in turn. */
export type Group = readonly (readonly Op[])[];

/** A group in the making. */
interface Knot {
  strands: Op[][];
  /** Knots that must run before. */
  readonly before: Set<Knot>;
  /** Its last op, by number. */
  last: number;
}

/** How many of the latest groups are tried as company for an op; more would only tie distant layers together. */
const LOOK_BACK = 12;

export interface FuseOptions {
  /** What shares with no other. */
  readonly isAlone?: (op: Op) => boolean;
  /** The most floating-point operations that share a dispatch. */
  readonly flopsMax?: number;
}

/** The groups of `program` in the order in which they run; none of several ops has more than `tensorsMax` tensors. */
export function fuse(
  program: Program,
  tensorsMax: number,
  { isAlone = () => false, flopsMax = DISPATCH_FLOPS_MAX }: FuseOptions = {},
): Group[] {
  const before = dependencies(program);
  const knots: Knot[] = [];
  const knotOf: Knot[] = [];
  for (const [number, op] of program.ops.entries()) {
    const needs = new Set((before[number] as readonly number[]).map((earlier) => knotOf[earlier] as Knot));
    const company = knots.slice(-LOOK_BACK).toReversed();
    const found = isAlone(op)
      ? undefined
      : company.find(
          (knot) =>
            !isAlone((knot.strands[0] as [Op])[0]) && join(program, knot, { op, needs }, { tensorsMax, flopsMax }),
        );
    const knot = found ?? { strands: [[op]], before: new Set(), last: number };
    for (const need of needs) {
      if (need !== knot) {
        knot.before.add(need);
      }
    }
    knot.last = number;
    knotOf.push(knot);
    if (found === undefined) {
      knots.push(knot);
    }
  }
  return inOrder(knots).map(({ strands }) => strands.map((strand) => collapse(program, strand)));
}

/** Lets `op` into `knot` if the two may share a dispatch; says whether it did. */
function join(
  program: Program,
  knot: Knot,
  { op, needs }: { readonly op: Op; readonly needs: ReadonlySet<Knot> },
  { tensorsMax, flopsMax }: { readonly tensorsMax: number; readonly flopsMax: number },
): boolean {
  const strands = isElementwise(op)
    ? withElements(program, knot.strands, op)
    : withOneMore(program, knot.strands, { op, waits: needs.has(knot) });
  if (strands === undefined || needsThrough(needs, knot)) {
    return false;
  }
  const flops = strands
    .flat()
    .reduce((sum, one) => sum + flopsOf(one, (id) => (program.tensors[id] as Tensor).shape), 0);
  if (flops > flopsMax || tensorsOf(strands.map((strand) => collapse(program, strand))) > tensorsMax) {
    return false;
  }
  knot.strands = strands;
  return true;
}

/** `strands` with an op of their kind: beside them, or at the end of the one that it `waits` for. */
function withOneMore(
  program: Program,
  strands: readonly Op[][],
  { op, waits }: { readonly op: Op; readonly waits: boolean },
): Op[][] | undefined {
  const [first] = strands[0] as [Op, ...Op[]];
  if (!isOfAKind(first, op)) {
    return undefined;
  }
  if (!waits) {
    const common = strands.flat().some((other) => operandsOf(other).some((id) => operandsOf(op).includes(id)));
    return op.type === "rope" || common ? [...strands, [op]] : undefined;
  }
  const at = strands.findIndex((strand) => continues(program, strand.at(-1) as Op, op));
  const others = strands.flatMap((strand, i) => (i === at ? strand.slice(0, -1) : strand));
  const alone = !others.some((other) => touches(program, other, op));
  return at !== -1 && alone ? strands.with(at, [...(strands[at] as Op[]), op]) : undefined;
}

/** `strands` with those of the products that `op` reads as one, and `op` at its end. */
function withElements(program: Program, strands: readonly Op[][], op: Op): Op[][] | undefined {
  const isRead = (strand: readonly Op[]): boolean => {
    const last = strand.at(-1) as Op;
    return last.type === "matmul" && readsOf(op).includes(last.out);
  };
  const read = strands.filter(isRead);
  const products = read.map((strand) => (strand.at(-1) as OpOf<"matmul">).out);
  const shapes = [...products, ...writesOf(op)].map((id) => (program.tensors[id] as Tensor).shape.join());
  // What it reads besides has to be there before, and what it writes is nobody else's: workgroups do not wait for each other.
  const besides = readsOf(op).filter((id) => !products.includes(id));
  const apart = strands
    .flat()
    .every((other) => !meet(program, besides, writesOf(other)) && !meet(program, writesOf(op), tensorsIn(other)));
  return read.length > 0 && new Set(shapes).size === 1 && apart
    ? [...strands.filter((strand) => !isRead(strand)), [...read.flat(), op]]
    : undefined;
}

/** Whether element i of what `op` writes depends on element i of what it reads, and it may be computed in place. */
function isElementwise(op: Op): boolean {
  return op.type === "swiglu" || op.type === "swigluBackward" || op.type === "add";
}

function isOfAKind(a: Op, b: Op): boolean {
  if (a.type === "rope" && b.type === "rope") {
    return a.time === b.time && a.headDim === b.headDim && a.base === b.base && a.inverse === b.inverse;
  }
  return a.type === "matmul" && b.type === "matmul";
}

/** Whether one of `needs`, other than `knot`, waits for `knot` in its turn. */
function needsThrough(needs: ReadonlySet<Knot>, knot: Knot): boolean {
  const seen = new Set<Knot>([knot]);
  const open = [...needs].filter((need) => need !== knot);
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (next.before.has(knot)) {
      return true;
    }
    if (!seen.has(next)) {
      seen.add(next);
      open.push(...next.before);
    }
  }
  return false;
}

/** Whether `next` is a product that is added to that of `last`, and nobody else ever sees the sum so far. */
function continues(program: Program, last: Op, next: Op): boolean {
  if (last.type !== "matmul" || next.type !== "matmul" || next.add !== last.out) {
    return false;
  }
  const [shape, nextShape] = [last, next].map(({ out }) => (program.tensors[out] as Tensor).shape.join());
  return (
    isPassing(program, last.out) &&
    shape === nextShape &&
    !operandsOf(next).includes(last.out) &&
    readsOf(last).every((id) => !overlap(program, id, next.out))
  );
}

/** Whether `id` is a value that one op writes, one reads, and nobody else ever sees. */
function isPassing(program: Program, id: TensorId): boolean {
  const users = program.ops.filter((op) => tensorsIn(op).some((used) => baseOf(program, used) === baseOf(program, id)));
  const { role, view } = program.tensors[id] as Tensor;
  const isRead = program.outputs.some((name) => baseOf(program, tensorNamed(program, name).id) === id);
  return role === "value" && view === undefined && users.length === 2 && !isRead;
}

/** The ops of a strand with all that passes between two of them where the last one's results go. */
function collapse(program: Program, strand: readonly Op[]): Op[] {
  const places = new Map<TensorId, TensorId>();
  const end = strand.at(-1) as Op;
  if (isElementwise(end)) {
    const stored = strand.flatMap(writesOf);
    const passing = readsOf(end).filter((id) => stored.includes(id) && isPassing(program, id));
    const results = writesOf(end);
    passing.slice(0, results.length).forEach((id, i) => places.set(id, results[i] as TensorId));
  }
  // From the end, so that a sum of many parts goes to its last place at once.
  for (let turn = strand.length - 2; turn >= 0; turn -= 1) {
    const [op, next] = [strand[turn], strand[turn + 1]] as [Op, Op];
    if (op.type === "matmul" && next.type === "matmul" && next.add === op.out) {
      places.set(op.out, places.get(next.out) ?? next.out);
    }
  }
  return strand.map((op) => renamed(op, places));
}

function tensorsOf(strands: readonly (readonly Op[])[]): number {
  const ops = strands.flat();
  // The table of angles is bound besides.
  const tables = ops.some(({ type }) => type === "rope") ? 1 : 0;
  return new Set(ops.flatMap(tensorsIn)).size + tables;
}

function tensorsIn(op: Op): TensorId[] {
  return [...readsOf(op), ...writesOf(op)];
}

function operandsOf(op: Op): TensorId[] {
  return op.type === "matmul" ? [op.a, op.b] : [];
}

/** For every op the numbers of the earlier ones that it must not overtake: it reads or writes what they write, or the other way round. */
function dependencies(program: Program): number[][] {
  const uses = new Map<TensorId, { readonly number: number; readonly id: TensorId; readonly writes: boolean }[]>();
  return program.ops.map((op, number) => {
    const before = new Set<number>();
    const own = [
      ...readsOf(op).map((id) => ({ number, id, writes: false })),
      ...writesOf(op).map((id) => ({ number, id, writes: true })),
    ];
    for (const use of own) {
      for (const earlier of uses.get(baseOf(program, use.id)) ?? []) {
        if ((use.writes || earlier.writes) && earlier.number !== number && overlap(program, use.id, earlier.id)) {
          before.add(earlier.number);
        }
      }
    }
    for (const use of own) {
      const base = baseOf(program, use.id);
      uses.set(base, [...(uses.get(base) ?? []), use]);
    }
    return [...before];
  });
}

/** Whether one of two ops writes memory that the other reads or writes. */
function touches(program: Program, a: Op, b: Op): boolean {
  return meet(program, writesOf(a), tensorsIn(b)) || meet(program, writesOf(b), readsOf(a));
}

function meet(program: Program, ids: readonly TensorId[], others: readonly TensorId[]): boolean {
  return ids.some((id) => others.some((other) => overlap(program, id, other)));
}

function overlap(program: Program, a: TensorId, b: TensorId): boolean {
  const [from, other] = [a, b].map((id) => program.tensors[id]?.view?.offset ?? 0) as [number, number];
  const [size, otherSize] = [a, b].map((id) => elementCount((program.tensors[id] as Tensor).shape)) as [number, number];
  return baseOf(program, a) === baseOf(program, b) && from < other + otherSize && other < from + size;
}

/** An order in which every knot comes after those it waits for; else the one whose last op was recorded first. */
function inOrder(knots: readonly Knot[]): Knot[] {
  const ordered: Knot[] = [];
  const done = new Set<Knot>();
  const place = (knot: Knot): void => {
    if (done.has(knot)) {
      return;
    }
    done.add(knot);
    [...knot.before].sort((a, b) => a.last - b.last).forEach(place);
    ordered.push(knot);
  };
  [...knots].sort((a, b) => a.last - b.last).forEach(place);
  return ordered;
}
