/**
 * A Program as text: its inputs, states and views, then one line for each op with the shapes of what it writes. Tests keep
 * such texts as snapshots, and they are what to read first when a Program does not do what was meant.
 */
import { READS, writesOf, WRITES, type Op, type Program, type TensorId } from "./program.ts";

/** The text of `program`, without a final line break. */
export function printProgram(program: Program): string {
  const name = (id: TensorId): string => program.tensors[id]?.name ?? `tensor ${id}`;
  const shaped = (id: TensorId): string => `${name(id)} [${program.tensors[id]?.shape.join(",") ?? "?"}]`;
  const lines = [`program ${program.name}`];
  for (const { id, role, dtype, view } of program.tensors) {
    if (view !== undefined) {
      lines.push(`view ${shaped(id)} = ${name(view.of)} from ${view.offset}`);
    } else if (role !== "value") {
      lines.push(`${role} ${shaped(id)}${dtype === "u32" ? " u32" : ""}`);
    }
  }
  for (const op of program.ops) {
    lines.push(`${writesOf(op).map(shaped).join(", ")} = ${op.type}(${argumentsOf(op, name).join(", ")})`);
  }
  lines.push(`outputs ${program.outputs.join(", ")}`);
  return lines.join("\n");
}

/** "time: 3", the bare name of a flag that is set, or how many there are: "7 matrices". */
export function settingText(field: string, value: unknown): string {
  return value === true ? field : Array.isArray(value) ? `${value.length} ${field}` : `${field}: ${String(value)}`;
}

/** "a: x" for what the op reads, then its settings: "time: 3", or the bare name of a flag that is set. */
function argumentsOf(op: Op, name: (id: TensorId) => string): string[] {
  const reads = READS[op.type] as readonly string[];
  const writes = WRITES[op.type] as readonly string[];
  const texts: string[] = [];
  const settings: string[] = [];
  for (const [field, value] of Object.entries(op)) {
    if (reads.includes(field)) {
      texts.push(`${field}: ${name(value as TensorId)}`);
    } else if (field !== "type" && !writes.includes(field) && value !== false) {
      settings.push(settingText(field, value));
    }
  }
  return [...texts, ...settings];
}
