/**
 * Which values of a Program a Plan keeps as f16 where its engine is told to: half the memory and half the traffic. Only
 * storage is f16. Kernels widen what they read and round what they write (`narrow` in `shader.ts`), and every sum is f32.
 *
 * f16 are what products, attention and gating take from each other on the way forward, as in mixed-precision training
 * (Micikevicius et al., arXiv 1710.03740; the lists of PyTorch's autocast). All else stays f32: gradients, which would vanish
 * below 6e-8 without a scaled loss; the residual stream, a sum over all layers whose roundings would add up; logits, losses,
 * and whatever a host reads or writes.
 */
import { baseOf, READS, readsOf, tensorNamed, WRITES, writesOf } from "../tensor/program.ts";
import type { Op, OpOf, OpType, Program, TensorId } from "../tensor/program.ts";

/** Fields of each op that may name an f16 tensor; an op or a field that is missing keeps what it names f32. */
const HALF_FIELDS: { readonly [K in OpType]?: readonly (keyof OpOf<K>)[] } = {
  matmul: ["a", "b", "out"],
  rmsNorm: ["out"],
  rope: ["x", "out"],
  attention: ["q", "k", "v", "out"],
  attentionBackward: ["q", "k", "v", "out"],
  swiglu: ["gate", "up", "out"],
  swigluBackward: ["gate", "up"],
};

/**
 * Ids of the values of `program` that are kept as f16: whole matrices that no op names in a field which wants f32. Their
 * rows are of even length, so that they, and windows of 64 rows, are whole words and begin where a binding may.
 */
export function halfTensors(program: Program): ReadonlySet<TensorId> {
  const wide = gradients(program);
  program.outputs.forEach((name) => wide.add(baseOf(program, tensorNamed(program, name).id)));
  program.tensors.forEach(({ view }) => view !== undefined && wide.add(view.of));
  const sums = new Set(program.ops.flatMap((op) => (op.type === "matmul" && op.add !== undefined ? [op.out] : [])));
  program.ops.flatMap((op) => wideIn(op, sums)).forEach((id) => wide.add(id));
  const halves = program.tensors.filter(
    ({ id, role, dtype, view, shape: [, width = 1, ...rest] }) =>
      role === "value" &&
      dtype === "f32" &&
      view === undefined &&
      width % 2 === 0 &&
      rest.length === 0 &&
      !wide.has(id),
  );
  return new Set(halves.map(({ id }) => id));
}

/** Values that come of a backward op, directly or not: what is computed from a gradient is one. */
function gradients(program: Program): Set<TensorId> {
  const found = new Set<TensorId>();
  for (const op of program.ops) {
    if (op.type.endsWith("Backward") || readsOf(op).some((id) => found.has(baseOf(program, id)))) {
      const written = writesOf(op).map((id) => baseOf(program, id));
      written.filter((id) => program.tensors[id]?.role === "value").forEach((id) => found.add(id));
    }
  }
  return found;
}

/** Tensors that `op` names where it wants f32; `sums` are those of several products. */
function wideIn(op: Op, sums: ReadonlySet<TensorId>): TensorId[] {
  const named = op as unknown as Readonly<Record<string, TensorId | undefined>>;
  const half: readonly string[] = HALF_FIELDS[op.type] ?? [];
  const fields: readonly string[] = [...READS[op.type], ...WRITES[op.type]];
  const wide = fields.filter((field) => !half.includes(field)).flatMap((field) => named[field] ?? []);
  // Term after term is added in the place of the sum, or of what is gated with it (`fuse.ts`).
  const inSumsPlace = op.type === "matmul" ? [op.out] : op.type === "swiglu" ? [op.gate, op.up] : [];
  return inSumsPlace.some((id) => sums.has(id)) ? [...wide, ...writesOf(op)] : wide;
}
