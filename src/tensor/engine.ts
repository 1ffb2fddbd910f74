/**
 * What every engine is: it compiles Programs to Plans and keeps the state tensors (parameters, gradients, moments) that
 * its Plans share by name. Three implement it: the twin (`tensor/twin.ts`, to be read), WebGPU (`gpu/`) and WASM SIMD
 * (`wasm/`). One contract suite runs on all of them (`test/engines/`).
 */
import type { Program } from "./program.ts";

export type EngineKind = "twin" | "webgpu" | "wasm";

export interface Engine {
  readonly kind: EngineKind;
  /** The device in words, for people: "WASM SIMD, 2 threads", "nvidia ampere". */
  readonly device: string;
  /**
   * Checks the Program against the device's limits and makes it ready to run. Throws HeddleError "model-too-big" with a
   * sentence that says by how much, "device-lost" when the device is gone.
   */
  compile(program: Program): Promise<Plan>;
  /**
   * Overwrites a state tensor of any compiled Plan. Throws when no Plan has it, the length differs, or a run is in the middle of
   * being submitted.
   */
  writeState(name: string, values: Float32Array): void;
  /** Copies a state tensor out, after everything submitted before it. */
  readState(name: string): Promise<Float32Array<ArrayBuffer>>;
  [Symbol.dispose](): void;
}

/** Copies of outputs by name; what is u32 comes as its bits. */
export type Outputs<Name extends string> = Readonly<Record<Name, Float32Array<ArrayBuffer>>>;

export interface Plan {
  /** Bytes of device memory held by this Plan alone (values and inputs) and by the engine's state tensors it uses. */
  readonly valueBytes: number;
  readonly stateBytes: number;
  /** The Plan as text: its ops in the order in which they run, what each costs and where its tensors lie (`print-plan.ts`). */
  describe(): string;
  /** Overwrites an input tensor. Throws when the name is unknown or the length or element type differs. */
  write(input: string, values: Float32Array | Uint32Array): void;
  /**
   * Replays the Plan once and returns the values of `outputs` after it; without any it may return before the device is done.
   * Nothing is allocated on the device once the same outputs have been asked for before. Rejects with HeddleError
   * "device-lost" and never trains on silently.
   */
  run<Name extends string = never>(outputs?: readonly Name[]): Promise<Outputs<Name>>;
  [Symbol.dispose](): void;
}

/** How runs are cut into submits and when the device rests; `engines/pace.ts` makes one. */
export interface Pace {
  /** For one Plan whose dispatches have so many floating-point operations. */
  plan(flops: readonly number[]): PlanPace;
}

export interface PlanPace {
  /** Where the submit that begins with dispatch `from` ends (exclusive). `from` itself is a submit of nothing, to be timed. */
  until(from: number): number;
  /**
   * Told that dispatches `from` … `to` were submitted; `done` settles when the device is through with them. Resolves when
   * the next submit may follow, rejects when an earlier one failed.
   */
  submitted(from: number, to: number, done: Promise<void>): Promise<void>;
}
