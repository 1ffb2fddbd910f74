/**
 * The ladder of matrix products: which kernel computes out = opA(a) · opB(b) (+ add), and with which tile.
 */
import matmulNaive from "../../shaders/matmul-naive.wgsl" with { type: "text" };
import matmulRegister from "../../shaders/matmul-register.wgsl" with { type: "text" };
import matmul from "../../shaders/matmul.wgsl" with { type: "text" };
import type { OpOf, TensorId } from "../tensor/program.ts";
import { addend, at, read, share, write, type Dispatch } from "./dispatch.ts";
import { bool, u32 } from "./shader.ts";

export type MatmulRung = "naive" | "register" | "tiled";

export interface MatmulContext {
  readonly rung: MatmulRung;
  shapeOf(id: TensorId): readonly number[];
}

/** The dispatch of `op` on its own, or as one of several products `beside` each other, itself among them. */
export function matmulDispatch(
  op: OpOf<"matmul">,
  beside: readonly OpOf<"matmul">[],
  { shapeOf, rung }: MatmulContext,
): Dispatch {
  const [M, N] = [at(shapeOf(op.out), 0), at(shapeOf(op.out), 1)];
  const K = at(shapeOf(op.a), op.transA ? 0 : 1);
  const [AM, AK] = op.transA ? [1, M] : [K, 1];
  const [BK, BN] = op.transB ? [1, K] : [N, 1];
  const strides = { AM: u32(AM), AK: u32(AK), BK: u32(BK), BN: u32(BN) };
  const constants = { M: u32(M), N: u32(N), K: u32(K), ...strides, ADD: bool(op.add !== undefined) };
  const bindings = [read(op.a), read(op.b), addend(op.add), write(op.out)];
  switch (rung) {
    case "naive":
      return { kernel: "matmul-naive", text: matmulNaive, constants, bindings, groups: share(M * N, 64) };
    case "register": {
      const groups = share(share(M, 8) * share(N, 4), 64);
      return { kernel: "matmul-register", text: matmulRegister, constants, bindings, groups };
    }
    case "tiled": {
      // Small products are cut finer, so that a GPU has enough workgroups to hide its latency.
      const squares = beside.map(({ out }) => share(at(shapeOf(out), 0), 64) * share(at(shapeOf(out), 1), 64));
      const TILE = squares.reduce((sum, count) => sum + count, 0) >= 64 ? 64 : 32;
      const groups = share(M, TILE) * share(N, TILE);
      return { kernel: "matmul", text: matmul, constants: { ...constants, TILE: u32(TILE) }, bindings, groups };
    }
    default:
      return rung satisfies never;
  }
}
