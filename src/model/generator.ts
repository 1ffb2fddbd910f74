/**
 * Text from a model over bytes, over any engine: the whole window is computed anew for each byte (there is no key/value
 * cache), which a small model affords. When the window is full it slides by one byte.
 */
import { assert } from "../base/assert.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Rng } from "../base/rng.ts";
import type { ModelConfig } from "../protocol/charter.ts";
import type { Engine } from "../tensor/engine.ts";
import { logitsProgram } from "./llama.ts";

/** What an empty prompt stands for: the byte before a new line of text. */
const NEWLINE = 10;

export interface GenerateOptions {
  /** Bytes to generate at most. */
  readonly count: number;
  /** 0 takes the likeliest byte; 1 samples from the model's distribution. */
  readonly temperature: number;
  readonly rng: Rng;
  readonly onByte?: (byte: number) => void;
  /** An AbortSignal: when it is aborted, what there is so far is returned. */
  readonly signal?: { readonly aborted: boolean } | undefined;
}

export interface Generator {
  /** Overwrites the engine's parameters [P], which a trainer on the same engine trains. */
  load(params: Float32Array): void;
  /** Returns the bytes that follow `prompt`, without it. */
  generate(prompt: Uint8Array, options: GenerateOptions): Promise<Bytes>;
  [Symbol.dispose](): void;
}

/** Compiles the Program for one sequence on `engine`. Throws HeddleError "model-too-big" when the device cannot hold it. */
export async function createGenerator(engine: Engine, { model }: { readonly model: ModelConfig }): Promise<Generator> {
  const { time, vocabulary } = model;
  assert(vocabulary <= 256, `Cannot generate bytes: the vocabulary has ${vocabulary} tokens, need at most 256`);
  const plan = await engine.compile(logitsProgram(model));
  const tokens = new Uint32Array(time);
  return {
    load: (params) => engine.writeState("params", params),
    generate: async (prompt, { count, temperature, rng, onByte, signal }) => {
      const written: number[] = [];
      const start = prompt.length === 0 ? Uint8Array.of(NEWLINE) : prompt.subarray(-time);
      assert(
        start.every((byte) => byte < vocabulary),
        `Cannot generate: the prompt has bytes outside the vocabulary of ${vocabulary}`,
      );
      let length = start.length;
      // What follows the last byte is left from earlier; attention is causal and does not see it.
      tokens.set(start);
      while (written.length < count) {
        if (signal?.aborted === true) {
          break;
        }
        plan.write("tokens", tokens);
        const { logits } = await plan.run(["logits"]); // [T,V]
        const byte = sample(logits.subarray((length - 1) * vocabulary, length * vocabulary), { temperature, rng });
        written.push(byte);
        onByte?.(byte);
        if (length === time) {
          tokens.copyWithin(0, 1);
          length -= 1;
        }
        tokens[length] = byte;
        length += 1;
      }
      return Uint8Array.from(written);
    },
    [Symbol.dispose]: () => plan[Symbol.dispose](),
  };
}

/** Draws an index of `logits` [V] with probability softmax(logits / temperature); the largest for temperature 0. */
export function sample(
  logits: Float32Array,
  { temperature, rng }: { readonly temperature: number; readonly rng: Rng },
): number {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  if (temperature === 0) {
    return logits.indexOf(max);
  }
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - max) / temperature));
  let left = rng.float() * weights.reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < weights.length; i += 1) {
    left -= weights[i] as number;
    if (left < 0) {
      return i;
    }
  }
  return logits.indexOf(max);
}
