/** The cases for f16 prove nothing where nothing is kept as f16. */
import { expect, test } from "vitest";
import { halfTensors } from "../../src/gpu/storage.ts";
import { readsOf, writesOf } from "../../src/tensor/program.ts";
import { halfCases } from "./half-cases.ts";

test.each(halfCases.map((one) => [one.name, one] as const))(
  "%s: its op reads or writes a value kept as f16",
  (_, one) => {
    const { program } = one.setup();
    const halves = halfTensors(program);
    const type = one.op.split(" ")[0];
    const users = program.ops.filter((op) => [...readsOf(op), ...writesOf(op)].some((id) => halves.has(id)));
    expect(users.map((op) => op.type)).toContain(type === "model" ? "matmul" : type);
  },
);
