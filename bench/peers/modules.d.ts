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
  type Tensors = Tensor | Tensor[] | { [name: string]: Tensor };
  export function setBackend(name: string): Promise<boolean>;
  export function ready(): Promise<void>;
  export interface WebGpuBackend {
    /** Set while there are dispatches that were not submitted. */
    readonly commandEncoder?: GPUCommandEncoder | null;
    endComputePassEncoder(): void;
    submitQueue(): void;
  }
  export function backend(): unknown;
  export function tidy<T extends Tensors>(work: () => T): T;
  export function dispose(tensors: Tensors): void;
  export function tensor(values: Float32Array | Int32Array, shape: number[], dtype?: "float32" | "int32"): Tensor;
  export function matMul(a: Tensor, b: Tensor, transposeA?: boolean, transposeB?: boolean): Tensor;
}
declare module "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
declare module "@tensorflow/tfjs-core/dist/register_all_gradients.js";
declare module "@tensorflow/tfjs-backend-webgpu";
declare module "@tensorflow/tfjs-backend-wasm" {
  export function setThreadsCount(threads: number): void;
  export function setWasmPaths(prefix: string): void;
}
