/** Which dispatches a group of products becomes on a GPU, where long sums are cut (`matmul.ts`). */
import { expect, test } from "vitest";
import { elementCount } from "../tensor/program.ts";
import { record, type Recorder } from "../tensor/record.ts";
import { fuse } from "./fuse.ts";
import { dispatchesOf, FUSED_BINDINGS_MAX } from "./kernels.ts";

function kernelsOf(build: (r: Recorder) => void): string[] {
  const r = record("products");
  build(r);
  const program = r.finish([]);
  const shapeOf = (id: number): readonly number[] => program.tensors[id]?.shape ?? [];
  const context = {
    choice: { matmul: "auto", attention: "auto", rows: "auto", fusion: "auto", storage: "f32" } as const,
    tuning: { nn: "tiled-64x64", nt: "tiled-64x64", tn: "tiled-64x64" } as const,
    software: false,
    lanesMin: 0,
    bindingBytesMax: 2 ** 27,
    shapeOf,
    countOf: (id: number) => elementCount(shapeOf(id)),
    elementBytes: () => 4,
  };
  const groups = fuse(program, FUSED_BINDINGS_MAX);
  return groups.flatMap((group) => dispatchesOf(group, context)).map(({ kernel }) => kernel);
}

/** Gradients of so many weights that read the same 1024 rows, with what is added to them. */
function gradients(count: number, adds: boolean): (r: Recorder) => void {
  return (r) => {
    const x = r.input("x", [1024, 64]);
    for (let i = 0; i < count; i += 1) {
      const add = adds ? { add: r.input(`add ${i}`, [64, 32]) } : {};
      r.matmul(x, r.input(`dout ${i}`, [1024, 32]), { transA: true, transB: false, ...add });
    }
  };
}

const CUT = "matmul-tiled-32x32-cut";

test("dispatchesOf() adds up what was cut in one more dispatch for a group", () => {
  expect(kernelsOf(gradients(1, true))).toEqual([CUT, "matmul-sum"]);
  expect(kernelsOf(gradients(2, false))).toEqual([`${CUT} | ${CUT}`, "matmul-sum | matmul-sum"]);
  expect(kernelsOf(gradients(2, true))).toEqual([`${CUT} | ${CUT}`, "matmul-sum | matmul-sum"]);
});

test("dispatchesOf() keeps the sums of cuts apart where they have more tensors than bind at once", () => {
  const same = (r: Recorder): void => {
    const [a, b] = [r.input("a", [64, 1024]), r.input("b", [1024, 32])];
    for (let i = 0; i < 3; i += 1) {
      r.matmul(a, b, { add: r.input(`add ${i}`, [64, 32]) });
    }
  };
  expect(kernelsOf(same)).toEqual([`${CUT} | ${CUT} | ${CUT}`, "matmul-sum", "matmul-sum", "matmul-sum"]);
});

test("dispatchesOf() cuts no sum that another product is added to in its turn", () => {
  const inTurn = (r: Recorder): void => {
    const [a, b] = [r.input("a", [64, 1024]), r.input("b", [1024, 64])];
    r.matmul(a, b, { add: r.matmul(r.input("c", [64, 1024]), r.input("d", [1024, 64])) });
  };
  expect(kernelsOf(inTurn)).toEqual(["matmul-tiled-32x32 then matmul-tiled-32x32"]);
});
