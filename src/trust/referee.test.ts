import { expect, test } from "vitest";
import { createCorpus } from "../data/corpus.ts";
import { heldOutLoss } from "./referee.ts";

const evaluation = createCorpus([Uint8Array.from({ length: 5_000 }, (_, i) => (i * 7 + Math.floor(i / 256)) % 256)]);
const params = new Float32Array(1);

/** The windows that are read at batch `batch`, each as its tokens. */
async function windowsAt(batch: number): Promise<string[]> {
  const windows: string[] = [];
  const evaluator = {
    load: () => undefined,
    loss: async ({ tokens }: { readonly tokens: Uint32Array }) => {
      for (let row = 0; row < batch; row += 1) {
        windows.push(tokens.slice(16 * row, 16 * (row + 1)).join(" "));
      }
      return 1;
    },
  };
  const charter = { inner: { batch }, model: { time: 16 } } as Parameters<typeof heldOutLoss>[1]["charter"];
  expect(await heldOutLoss(evaluator, { charter, evaluation, params })).toBe(1);
  return windows;
}

test("heldOutLoss() reads the same windows whatever the batch that divides them, and whole batches", async () => {
  const windows = await windowsAt(8);
  expect(new Set(windows).size).toBe(64);
  expect(await windowsAt(2)).toEqual(windows);
  expect(await windowsAt(64)).toEqual(windows);
  expect(await windowsAt(100)).toHaveLength(100);
});
