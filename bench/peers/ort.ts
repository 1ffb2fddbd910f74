/**
 * onnxruntime-web (https://github.com/microsoft/onnxruntime) as contenders. It runs models, so every work is one; it has no
 * way back. Attention comes twice, as its fused MultiHeadAttention ("ort") and composed of ops of ONNX ("ort composed"),
 * because the fused one is wrong on some adapters.
 */
import type { InferenceSession, Runtime, Tensor } from "onnxruntime-web/wasm";
import type { Contender, Ready, Surroundings } from "../contest/contender.ts";
import { attentionOperands, operand, type AttentionWork, type MatmulWork, type Work } from "../contest/works.ts";
import { encodeModel, type Graph, type Values } from "./onnx.ts";

export async function open(surroundings: Surroundings): Promise<Contender[]> {
  const { backend, fileUrl } = surroundings;
  const ort = await (backend.type === "webgpu" ? import("onnxruntime-web/webgpu") : import("onnxruntime-web/wasm"));
  ort.env.wasm.wasmPaths = fileUrl("onnxruntime-web/dist/");
  ort.env.wasm.numThreads = backend.type === "wasm" ? backend.threads : 1;
  const contender = (name: string, way: "fused" | "composed"): Contender => ({
    name,
    prepare: async (work) => {
      const task = taskOf(work, way);
      return task && start(ort, task, surroundings);
    },
  });
  return [contender("ort", "fused"), contender("ort composed", "composed")];
}

/** A model, its operands, and how what it gives is brought into the order that the work asks for. */
interface Task {
  readonly nodes: Graph["nodes"];
  readonly operands: Readonly<Record<string, Values>>;
  readonly constants?: Graph["constants"];
  readonly output: Graph["output"] & { readonly finish?: (values: Float32Array) => Float32Array };
}

function taskOf(work: Work, way: "fused" | "composed"): Task | undefined {
  if (work.type === "matmul") {
    return way === "fused" ? product(work) : undefined;
  }
  if (work.type === "attention" && work.way === "forward") {
    return way === "fused" ? fusedAttention(work) : composedAttention(work);
  }
  return undefined;
}

function product({ m, n, k, transA = false, transB = false }: MatmulWork): Task {
  const inputs = ["a", "b"];
  const attributes = { transA: Number(transA), transB: Number(transB) };
  return {
    nodes: [
      transA || transB ? { type: "Gemm", inputs, output: "c", attributes } : { type: "MatMul", inputs, output: "c" },
    ],
    operands: {
      a: { dims: transA ? [k, m] : [m, k], data: operand("a", m * k) },
      b: { dims: transB ? [n, k] : [k, n], data: operand("b", k * n) },
    },
    output: { name: "c", dims: [m, n] },
  };
}

/** It scales by 1/√D by itself. */
function fusedAttention(work: AttentionWork): Task {
  const { time, heads, headDim } = work;
  const dims = [1, time, heads * headDim];
  const { q, k, v } = attentionOperands(work);
  const attributes = { num_heads: heads, unidirectional: 1 };
  return {
    nodes: [
      { type: "MultiHeadAttention", domain: "com.microsoft", inputs: ["q", "k", "v"], output: "out", attributes },
    ],
    operands: { q: { dims, data: q }, k: { dims, data: k }, v: { dims, data: v } },
    output: { name: "out", dims },
  };
}

/** Heads come first, and keys are turned round; that is done to the operands and is not timed, and neither is the way back. */
function composedAttention(work: AttentionWork): Task {
  const { time, heads, headDim } = work;
  const { q, k, v } = attentionOperands(work);
  const at = (head: number, t: number, d: number): number => (t * heads + head) * headDim + d;
  const dims = [heads, time, headDim] as const;
  const byHead = (values: Float32Array): Float32Array<ArrayBuffer> =>
    fill(dims, (head, t, d) => values[at(head, t, d)] as number);
  const keys = fill([heads, headDim, time], (head, d, t) => k[at(head, t, d)] as number);
  const mask = fill([1, time, time], (_, i, j) => (j > i ? -1e9 : 0));
  return {
    nodes: [
      { type: "Mul", inputs: ["q", "scale"], output: "scaled" },
      { type: "MatMul", inputs: ["scaled", "k"], output: "scores" },
      { type: "Add", inputs: ["scores", "mask"], output: "masked" },
      { type: "Softmax", inputs: ["masked"], output: "weights" },
      { type: "MatMul", inputs: ["weights", "v"], output: "out" },
    ],
    operands: {
      q: { dims, data: byHead(q) },
      k: { dims: [heads, headDim, time], data: keys },
      v: { dims, data: byHead(v) },
    },
    constants: {
      scale: { dims: [1], data: Float32Array.of(1 / Math.sqrt(headDim)) },
      mask: { dims: [1, time, time], data: mask },
    },
    output: {
      name: "out",
      dims,
      finish: (out) => fill([time, heads, headDim], (t, head, d) => out[(head * time + t) * headDim + d] as number),
    },
  };
}

/** Values of a tensor of three dimensions, row by row. */
function fill(
  [I, J, K]: readonly [number, number, number],
  valueAt: (i: number, j: number, k: number) => number,
): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: I * J * K }, (_, at) =>
    valueAt(Math.floor(at / (J * K)), Math.floor(at / K) % J, at % K),
  );
}

/** On WASM the operands are copied into its memory at every call, which costs it 1 to 4 % beside operands in the model. */
async function start(ort: Runtime, task: Task, { backend, syncWith }: Surroundings): Promise<Ready> {
  const { nodes, operands, constants = {}, output } = task;
  const inputs = Object.fromEntries(Object.entries(operands).map(([name, { dims }]) => [name, dims]));
  const session = await ort.InferenceSession.create(encodeModel({ nodes, inputs, constants, output }), {
    executionProviders: [backend.type],
    preferredOutputLocation: backend.type === "webgpu" ? "gpu-buffer" : "cpu",
    // On WebGPU no node may quietly be put on the processor, which is what "CPU" is here.
    extra: { session: { disable_cpu_ep_fallback: backend.type === "webgpu" ? "1" : "0" } },
  });
  const device = backend.type === "webgpu" ? await ort.env.webgpu.device : undefined;
  const place = ({ dims, data }: Values): Tensor =>
    device === undefined ? new ort.Tensor("float32", data, dims) : upload(ort, device, { dims, data });
  const feeds = Object.fromEntries(Object.entries(operands).map(([name, values]) => [name, place(values)]));
  return ready({ session, feeds, output, sync: async () => device && syncWith(device) });
}

function upload(ort: Runtime, device: GPUDevice, { dims, data }: Values): Tensor {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffer = device.createBuffer({ size: data.byteLength, usage });
  device.queue.writeBuffer(buffer, 0, data);
  return ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims, dispose: () => buffer.destroy() });
}

interface Started {
  readonly session: InferenceSession;
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly output: Task["output"];
  readonly sync: () => Promise<void>;
}

function ready({ session, feeds, output, sync }: Started): Ready {
  let last: Tensor | undefined;
  return {
    run: async (times) => {
      for (let i = 0; i < times; i += 1) {
        last?.dispose();
        last = (await session.run(feeds))[output.name];
      }
      await sync();
    },
    outputs: async () => {
      const values = await last?.getData();
      return values === undefined ? {} : { [output.name]: output.finish?.(values) ?? values };
    },
    [Symbol.dispose]: () => {
      last?.dispose();
      Object.values(feeds).forEach((tensor) => tensor.dispose());
      void session.release();
    },
  };
}
