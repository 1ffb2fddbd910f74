/** jax-js (https://github.com/ekzhang/jax-js) as a contender. Works are traced once by `jit`, as its documentation asks for. */
import { blockUntilReady, defaultDevice, init, jit, numpy as np } from "@jax-js/jax";
import type { Contender, Ready, Surroundings } from "../contest/contender.ts";
import { operand, type Work } from "../contest/works.ts";

export async function open({ backend }: Surroundings): Promise<Contender> {
  if (backend.type === "wasm") {
    // It starts one thread for every processor that the runtime admits to.
    Object.defineProperty(navigator, "hardwareConcurrency", { value: backend.threads });
  }
  const found = await init(backend.type);
  if (!found.includes(backend.type)) {
    throw new Error(`jax-js offers no ${backend.type} here`);
  }
  defaultDevice(backend.type);
  return { name: "jax-js", prepare: async (work) => prepare(work) };
}

/** Inputs are lent with `.ref`, because arrays are consumed by what they are given to. */
function prepare(work: Work): Ready {
  switch (work.type) {
    case "matmul": {
      const { m, n, k } = work;
      const a = np.array(operand("a", m * k)).reshape([m, k]);
      const b = np.array(operand("b", k * n)).reshape([k, n]);
      const product = jit((x: np.Array, y: np.Array) => np.matmul(x, y));
      return ready({ inputs: [a, b], call: () => ({ c: product(a.ref, b.ref) }) });
    }
    default:
      return work.type satisfies never;
  }
}

type Arrays = Record<string, np.Array>;

function ready({ inputs, call }: { readonly inputs: readonly np.Array[]; readonly call: () => Arrays }): Ready {
  let last: Arrays = {};
  const dispose = (arrays: Arrays): void => Object.values(arrays).forEach((array) => array.dispose());
  return {
    run: async (times) => {
      // Arrays are lazy: one that is disposed of before it is ready may never be computed.
      const made = Array.from({ length: times }, call);
      await blockUntilReady(made.flatMap((arrays) => Object.values(arrays)));
      dispose(last);
      last = made.pop() ?? {};
      made.forEach(dispose);
    },
    outputs: async () => {
      const outputs: Record<string, Float32Array> = {};
      for (const [name, array] of Object.entries(last)) {
        outputs[name] = (await array.ref.data()) as Float32Array;
      }
      return outputs;
    },
    [Symbol.dispose]: () => {
      dispose(last);
      inputs.forEach((array) => array.dispose());
    },
  };
}
