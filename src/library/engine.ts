/**
 * The entry of the package `heddle/engine`: what a program outside this project needs to train and run models on WebGPU and
 * WASM. It adds nothing, it only says what is public; `docs/engine.md` is its manual. Everything that is not named here may
 * change without notice.
 */
export { AssertionError, HeddleError, type ErrorCode } from "../base/assert.ts";
export type { Clock } from "../base/clock.ts";
export { createRng, type Rng } from "../base/rng.ts";
export { createEngine, type OpenEngineOptions } from "../engines/open.ts";
export type { Tunings } from "../engines/tunings.ts";
export { createPace, type Neighbour, type PaceOptions, type PaceState } from "../engines/pace.ts";
export { createGpuEngine, probeGpu, type GpuEngine, type GpuEngineOptions } from "../gpu/engine.ts";
export { selfTest } from "../gpu/self-test.ts";
export { createEvaluator, type Evaluator, type EvaluatorOptions } from "../model/evaluator.ts";
export { createGenerator, sample, type GenerateOptions, type Generator } from "../model/generator.ts";
export { initialParameters, parameterLayout, type ParameterLayout } from "../model/layout.ts";
export { logitsProgram, lossProgram, trainProgram } from "../model/llama.ts";
export { memoryOf, type MemoryNeed } from "../model/memory.ts";
export { createTrainer, type Moments, type StepResult, type TokenBatch, type Trainer } from "../model/trainer.ts";
export { systemClock } from "../net/system-clock.ts";
export type { InnerConfig, ModelConfig } from "../protocol/charter.ts";
export type { Engine, EngineKind, Outputs, Plan } from "../tensor/engine.ts";
export { grad, type GradOptions } from "../tensor/grad.ts";
export { printProgram } from "../tensor/print.ts";
export { tensorNamed } from "../tensor/program.ts";
export type { DType, HeadShape, Op, OpType, Program, Role, Tensor, TensorId } from "../tensor/program.ts";
export { record, sortTokens, type Recorder } from "../tensor/record.ts";
export { createTwin, evaluate } from "../tensor/twin.ts";
export { createWasmEngine, type SpawnThread, type WasmEngineOptions } from "../wasm/engine.ts";
