/** Runs in a browser's worker: gets a number of threads, answers with the training digest or with what went wrong. */
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { trainDigest } from "./train-digest.ts";

self.addEventListener("message", (event: MessageEvent<number>) => {
  void answer(event.data).then((result) => self.postMessage(result));
});

async function answer(threads: number): Promise<unknown> {
  try {
    using engine = await createWasmEngine({ threads });
    return await trainDigest(engine);
  } catch (error) {
    return { error: String(error) };
  }
}
