/**
 * The part of the peers that the benchmarks call, declared here because the peers are installed only on request and the
 * rest of the repository must be checked without them.
 */
declare module "@tensorflow/tfjs-core" {
  export interface Tensor {
    readonly shape: number[];
    data(): Promise<Float32Array | Int32Array | Uint8Array>;
    dispose(): void;
  }
  interface Tensors {
    [name: string]: Tensor | Tensor[];
  }
  type Operand = Tensor | number;
  export function setBackend(name: string): Promise<boolean>;
  export function ready(): Promise<void>;
  export interface WebGpuBackend {
    /** Set while there are dispatches that were not submitted. */
    readonly commandEncoder?: GPUCommandEncoder | null;
    endComputePassEncoder(): void;
    submitQueue(): void;
  }
  export function backend(): unknown;
  export function tidy<T extends Tensor | Tensor[] | Tensors>(work: () => T): T;
  export function dispose(tensors: Tensor | Tensor[] | Tensors): void;
  export function grads(f: (...args: Tensor[]) => Tensor): (args: Tensor[], dy?: Tensor) => Tensor[];
  export function valueAndGrads(
    f: (...args: Tensor[]) => Tensor,
  ): (args: Tensor[]) => { value: Tensor; grads: Tensor[] };
  export function tensor(values: Float32Array | Int32Array, shape: number[], dtype?: "float32" | "int32"): Tensor;
  export function zeros(shape: number[]): Tensor;
  export function oneHot(indices: Tensor, depth: number): Tensor;
  export function matMul(a: Tensor, b: Tensor, transposeA?: boolean, transposeB?: boolean): Tensor;
  export function add(a: Operand, b: Operand): Tensor;
  export function sub(a: Operand, b: Operand): Tensor;
  export function mul(a: Operand, b: Operand): Tensor;
  export function div(a: Operand, b: Operand): Tensor;
  export function minimum(a: Operand, b: Operand): Tensor;
  export function neg(x: Tensor): Tensor;
  export function square(x: Tensor): Tensor;
  export function sqrt(x: Tensor): Tensor;
  export function rsqrt(x: Tensor): Tensor;
  export function sigmoid(x: Tensor): Tensor;
  export function softmax(x: Tensor): Tensor;
  export function logSoftmax(x: Tensor): Tensor;
  export function sum(x: Tensor, axis?: number): Tensor;
  export function mean(x: Tensor, axis?: number, keepDims?: boolean): Tensor;
  export function reshape(x: Tensor, shape: number[]): Tensor;
  export function transpose(x: Tensor, order: number[]): Tensor;
  export function split(x: Tensor, count: number, axis: number): Tensor[];
  export function concat(tensors: Tensor[], axis: number): Tensor;
}
declare module "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
declare module "@tensorflow/tfjs-core/dist/register_all_gradients.js";
declare module "@tensorflow/tfjs-backend-webgpu";
declare module "@tensorflow/tfjs-backend-wasm" {
  export function setThreadsCount(threads: number): void;
  export function setWasmPaths(prefix: string): void;
}
declare module "protobufjs" {
  interface Type {
    /** Throws when a value does not fit its field. */
    encode(message: object): { finish(): Uint8Array };
  }
  interface Root {
    lookupType(name: string): Type;
  }
  export function parse(schema: string, options: { readonly keepCase: boolean }): { readonly root: Root };
}
declare module "onnxruntime-web/wasm" {
  export interface Tensor {
    /** Reads it from where it is. */
    getData(): Promise<Float32Array>;
    dispose(): void;
  }
  interface SessionOptions {
    readonly executionProviders: readonly ("wasm" | "webgpu")[];
    readonly preferredOutputLocation: "cpu" | "gpu-buffer";
    readonly extra: { readonly session: Readonly<Record<string, string>> };
  }
  export interface InferenceSession {
    run(feeds: Readonly<Record<string, Tensor>>): Promise<Record<string, Tensor>>;
    release(): Promise<void>;
  }
  export interface Runtime {
    readonly env: {
      readonly wasm: { wasmPaths: string; numThreads: number };
      /** Opened with the first session. */
      readonly webgpu: { readonly device: Promise<GPUDevice> };
    };
    readonly InferenceSession: { create(model: Uint8Array, options: SessionOptions): Promise<InferenceSession> };
    readonly Tensor: {
      new (type: "float32", data: Float32Array, dims: readonly number[]): Tensor;
      fromGpuBuffer(
        buffer: GPUBuffer,
        options: { readonly dataType: "float32"; readonly dims: readonly number[]; readonly dispose: () => void },
      ): Tensor;
    };
  }
  export const env: Runtime["env"];
  export const InferenceSession: Runtime["InferenceSession"];
  export const Tensor: Runtime["Tensor"];
}
declare module "onnxruntime-web/webgpu" {
  export { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
}
