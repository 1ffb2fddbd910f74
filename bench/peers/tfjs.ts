/** TensorFlow.js (https://github.com/tensorflow/tfjs) as a contender. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import { setThreadsCount, setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import "@tensorflow/tfjs-backend-webgpu";
import type { Contender, Ready, Surroundings } from "../contest/contender.ts";
import { attentionOperands, operand, type AttentionWork, type Work } from "../contest/works.ts";
import { attend, causalMask, prepareStep } from "./tfjs-llama.ts";

export async function open({ backend, fileUrl, lastDevice, syncWith }: Surroundings): Promise<Contender[]> {
  if (backend.type === "wasm") {
    setThreadsCount(backend.threads);
    setWasmPaths(fileUrl("@tensorflow/tfjs-backend-wasm/dist/"));
  }
  if (!(await tf.setBackend(backend.type))) {
    throw new Error(`tfjs offers no ${backend.type} here`);
  }
  await tf.ready();
  let sync = async (): Promise<void> => undefined;
  if (backend.type === "webgpu") {
    const device = lastDevice();
    sync = () => {
      // It gathers dispatches and submits them a few at a time; this is how its own reads submit the rest.
      const queue = tf.backend() as tf.WebGpuBackend;
      if (queue.commandEncoder) {
        queue.endComputePassEncoder();
        queue.submitQueue();
      }
      return syncWith(device);
    };
  }
  return [{ name: "tfjs", prepare: async (work) => prepare(work, sync) }];
}

function prepare(work: Work, sync: () => Promise<void>): Ready {
  switch (work.type) {
    case "matmul": {
      const { m, n, k, transA = false, transB = false } = work;
      const a = tf.tensor(operand("a", m * k), transA ? [k, m] : [m, k]);
      const b = tf.tensor(operand("b", k * n), transB ? [n, k] : [k, n]);
      return ready({ inputs: [a, b], call: () => ({ c: tf.matMul(a, b, transA, transB) }) }, sync);
    }
    case "attention":
      return prepareAttention(work, sync);
    case "step":
      return prepareStep(work);
    default:
      return work satisfies never;
  }
}

function prepareAttention(work: AttentionWork, sync: () => Promise<void>): Ready {
  const { time, heads, headDim, way } = work;
  const operands = attentionOperands(work);
  // Its products want [H,T,D]; turning the operands round is not timed.
  const turned = [operands.q, operands.k, operands.v, operands.dout].map((values) =>
    tf.tidy(() => tf.transpose(tf.tensor(values, [time, heads, headDim]), [1, 0, 2])),
  );
  const [q, k, v, dout] = turned as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  const mask = causalMask(time);
  const inputs = [...turned, mask];
  const finish = (tensor: tf.Tensor): tf.Tensor => tf.transpose(tensor, [1, 0, 2]);
  if (way === "forward") {
    return ready({ inputs, finish, call: () => ({ out: attend(q, k, v, mask) }) }, sync);
  }
  const backward = tf.grads((...[x, y, z]: tf.Tensor[]) =>
    attend(x as tf.Tensor, y as tf.Tensor, z as tf.Tensor, mask),
  );
  const call = (): Tensors => {
    const [dq, dk, dv] = backward([q, k, v], dout) as [tf.Tensor, tf.Tensor, tf.Tensor];
    return { dq, dk, dv };
  };
  return ready({ inputs, finish, call }, sync);
}

type Tensors = Record<string, tf.Tensor>;

interface Calls {
  readonly inputs: readonly tf.Tensor[];
  readonly call: () => Tensors;
  /** Brings an output into the order that the work asks for. */
  readonly finish?: (tensor: tf.Tensor) => tf.Tensor;
}

function ready({ inputs, call, finish = (tensor) => tensor }: Calls, sync: () => Promise<void>): Ready {
  let last: Tensors = {};
  return {
    run: async (times) => {
      for (let i = 0; i < times; i += 1) {
        tf.dispose(last);
        last = tf.tidy(call);
      }
      await sync();
    },
    outputs: async () => {
      const outputs: Record<string, Float32Array> = {};
      for (const [name, tensor] of Object.entries(last)) {
        outputs[name] = (await tf.tidy(() => finish(tensor)).data()) as Float32Array;
      }
      return outputs;
    },
    [Symbol.dispose]: () => {
      tf.dispose(last);
      tf.dispose([...inputs]);
    },
  };
}
