/** TensorFlow.js (https://github.com/tensorflow/tfjs) as a contender. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";
import { setThreadsCount, setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import "@tensorflow/tfjs-backend-webgpu";
import type { Contender, Ready, Surroundings } from "../contest/contender.ts";
import { operand, type Work } from "../contest/works.ts";

export async function open({ backend, fileUrl, lastDevice, syncWith }: Surroundings): Promise<Contender> {
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
  return { name: "tfjs", prepare: async (work) => prepare(work, sync) };
}

function prepare(work: Work, sync: () => Promise<void>): Ready {
  switch (work.type) {
    case "matmul": {
      const { m, n, k } = work;
      const a = tf.tensor(operand("a", m * k), [m, k]);
      const b = tf.tensor(operand("b", k * n), [k, n]);
      return ready({ inputs: [a, b], call: () => ({ c: tf.matMul(a, b) }) }, sync);
    }
    default:
      return work.type satisfies never;
  }
}

type Tensors = Record<string, tf.Tensor>;

function ready(
  { inputs, call }: { readonly inputs: readonly tf.Tensor[]; readonly call: () => Tensors },
  sync: () => Promise<void>,
): Ready {
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
        outputs[name] = (await tensor.data()) as Float32Array;
      }
      return outputs;
    },
    [Symbol.dispose]: () => {
      tf.dispose(last);
      tf.dispose([...inputs]);
    },
  };
}
