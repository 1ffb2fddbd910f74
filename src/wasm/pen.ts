/** What emitting an op needs of the plan that is being drafted, and what it leaves there. */
import type { OpOf, TensorId } from "../tensor/program.ts";
import type { Place } from "./layout.ts";

export type Word = number | Place;

export interface Instruction {
  readonly opcode: number;
  readonly tiles: number;
  /** From word 2 on. */
  readonly words: readonly Word[];
}

/** What emitting an op needs of the plan that is being drafted. */
export interface Pen {
  readonly threads: number;
  place(id: TensorId): Place;
  placeOrZero(id: TensorId | undefined): Word;
  shape(id: TensorId): readonly [number, number];
  count(id: TensorId): number;
  emit(opcode: number, tiles: number, words: readonly Word[]): void;
  table(op: OpOf<"rope">): Place;
  /** Makes sure that packed operands and each thread's scratch memory have at least these bytes. */
  need(bytes: { packed?: number; thread?: number }): void;
}

/** The bits of `value` as a 32-bit float. */
export function floatBits(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0] as number;
}
