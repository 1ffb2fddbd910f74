/**
 * A Plan as text, for whoever wants to know where the time and the memory of a run go: one line for each op with what it
 * costs (`cost.ts`), the shapes of its tensors and where they lie, then the totals. Entry points print it when DEBUG is 2.
 */
import { present } from "../base/assert.ts";
import { costOf } from "./cost.ts";
import { settingText } from "./print.ts";
import { READS, readsOf, WRITES, writesOf, type Op, type Program, type TensorId } from "./program.ts";

/** Ops that an engine runs as one: a dispatch, or a few in a row. */
export interface PlanStep {
  readonly kernel: string;
  readonly ops: readonly Op[];
}

export interface PlanText {
  /** In the order in which they run. */
  readonly steps: readonly PlanStep[];
  /** "92 dispatches". */
  readonly size: string;
  /** Where a tensor lies: "slot 3", "params+4096". */
  place(id: TensorId): string;
  /** Bytes of one element of a tensor, 4 where an engine does not say. */
  readonly elementBytes?: (id: TensorId) => number;
  readonly stateBytes: number;
  readonly valueBytes: number;
}

const KERNEL_COLUMNS = 28;

export function printPlan(
  program: Program,
  { steps, size, place, elementBytes = () => 4, stateBytes, valueBytes }: PlanText,
): string {
  const tensor = (id: TensorId): string => {
    const { name, shape } = present(program.tensors[id], `tensor ${id}`);
    return `${name} [${shape.join()}]${elementBytes(id) === 2 ? " f16" : ""} @${place(id)}`;
  };
  let [flops, bytes] = [0, 0];
  const lines = steps.flatMap(({ kernel, ops }, step) =>
    ops.map((op, i) => {
      const cost = costOf(program, op, elementBytes);
      flops += cost.flops;
      bytes += cost.bytes;
      const name = i === 0 ? short(kernel) : "";
      const number = i === 0 ? String(step) : "";
      const costs = `${figure(cost.flops).padStart(8)}FLOP ${figure(cost.bytes).padStart(8)}B`;
      const reads = [...new Set(readsOf(op))].map(tensor).join(", ");
      return `${number.padStart(4)} ${name.padEnd(KERNEL_COLUMNS)}${costs}  ${writesOf(op).map(tensor).join(", ")} = ${op.type}(${reads})${settings(op)}`;
    }),
  );
  const memory = `${figure(stateBytes)}B of states, ${figure(valueBytes)}B of values and inputs`;
  return [
    `plan ${program.name}`,
    ...lines,
    `total ${program.ops.length} ops in ${size}, ${figure(flops)}FLOP, ${figure(bytes)}B moved at least, ${memory}`,
  ].join("\n");
}

/** Flags and numbers of an op that are no tensors. */
function settings(op: Op): string {
  const tensors = [...(READS[op.type] as readonly string[]), ...(WRITES[op.type] as readonly string[]), "type"];
  const rest = Object.entries(op).filter(([field, value]) => !tensors.includes(field) && value !== false);
  return rest.map(([field, value]) => ` ${settingText(field, value).replace(": ", " ")}`).join("");
}

function short(kernel: string): string {
  return kernel.length < KERNEL_COLUMNS ? kernel : `${kernel.slice(0, KERNEL_COLUMNS - 2)}…`;
}

/** Three digits and a decimal prefix: "5.84 G". */
function figure(value: number): string {
  const [size = 1, prefix = ""] =
    ([
      [1e12, "T"],
      [1e9, "G"],
      [1e6, "M"],
      [1e3, "k"],
    ].find(([unit]) => value >= (unit as number)) as [number, string] | undefined) ?? [];
  const scaled = value / size;
  const digits = scaled >= 100 || size === 1 ? 0 : scaled >= 10 ? 1 : 2;
  return `${scaled.toFixed(digits)} ${prefix}`;
}
