/**
 * Less memory for more time: values that only the backward ops still need are dropped and computed again shortly before, by
 * the same ops from the same inputs, so that the results are the same bits. The benchmark's training step needs 26.7 MB
 * instead of 50.5 that way and took 7 % longer on WASM; `npm run bench gpu thrift memory` measures both on WebGPU.
 * Source: Chen et al., arXiv 1604.06174.
 */
import { assert, present } from "../base/assert.ts";
import { baseOf, readsOf, renamed, writesOf, type Op, type Program, type TensorId } from "./program.ts";
import { record, type Recorder } from "./record.ts";

/** The ops from the one after whoever writes `input` up to the one that writes `output`; both values are kept. */
export interface Segment {
  readonly input: TensorId;
  readonly output: TensorId;
}

/**
 * `program` with all values that lie within a segment computed again before the first op behind the segment that reads one
 * of them. What nobody reads later is not computed again.
 */
export function recompute(program: Program, segments: readonly Segment[]): Program {
  const writer = (id: TensorId): number => program.ops.findIndex((op) => writesOf(op).includes(id));
  const clones = new Map<number, Op[]>();
  /** By segment: which value stands for which behind it. */
  const stands: { readonly end: number; readonly names: ReadonlyMap<TensorId, TensorId> }[] = [];
  const recorder = record(program.name, { ...program, ops: [] });
  for (const { input, output } of segments) {
    const [begin, end] = [writer(input) + 1, writer(output)];
    assert(begin > 0 && end >= begin, "Cannot recompute: the segment's values are not written in this order");
    const inside = program.ops.slice(begin, end + 1);
    const lost = new Set(inside.flatMap(writesOf).filter((id) => id !== output));
    assert(
      [...lost].every((id) => program.tensors[id]?.role === "value" && baseOf(program, id) === id),
      "Cannot recompute: the segment writes more than values of its own",
    );
    const first = program.ops.findIndex((op, at) => at > end && readsOf(op).some((id) => lost.has(id)));
    if (first !== -1) {
      const read = program.ops.slice(end + 1).flatMap(readsOf);
      const { ops, names } = cloneOf(inside, new Set(read.filter((id) => lost.has(id))), lost, { program, recorder });
      clones.set(first, [...(clones.get(first) ?? []), ...ops]);
      stands.push({ end, names });
    }
  }
  stands.sort((a, b) => a.end - b.end);
  const names = new Map<TensorId, TensorId>();
  let passed = 0;
  for (const [at, op] of program.ops.entries()) {
    (clones.get(at) ?? []).forEach(recorder.push);
    for (let stand = stands[passed]; stand !== undefined && at > stand.end; stand = stands[passed]) {
      stand.names.forEach((again, id) => names.set(id, again));
      passed += 1;
    }
    recorder.push(renamed(op, names));
  }
  return recorder.finish(program.outputs);
}

/** Copies of those `ops` that `needed` depends on within `lost`, and the names of their new results. */
function cloneOf(
  ops: readonly Op[],
  needed: Set<TensorId>,
  lost: ReadonlySet<TensorId>,
  { program, recorder }: { readonly program: Program; readonly recorder: Recorder },
): { ops: Op[]; names: Map<TensorId, TensorId> } {
  const kept: Op[] = [];
  for (const op of ops.toReversed()) {
    if (writesOf(op).some((id) => needed.has(id))) {
      kept.unshift(op);
      readsOf(op)
        .filter((id) => lost.has(id))
        .forEach((id) => needed.add(id));
    }
  }
  const names = new Map<TensorId, TensorId>();
  for (const id of kept.flatMap(writesOf)) {
    const { name, shape, dtype } = present(program.tensors[id], `tensor ${id}`);
    names.set(id, recorder.value(`${name} again`, shape, dtype));
  }
  return { ops: kept.map((op) => renamed(op, names)), names };
}
