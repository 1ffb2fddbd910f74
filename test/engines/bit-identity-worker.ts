/** Runs in a browser's worker: gets a number of threads, answers with the training digest or with what went wrong. */
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { spawn } from "../../src/wasm/spawn-web.ts";
import { trainDigest } from "./train-digest.ts";

self.addEventListener("message", (event: MessageEvent<number>) => {
  void answer(event.data).then((result) => self.postMessage(result));
});

async function answer(threads: number): Promise<unknown> {
  try {
    const bytes = await (await fetch("/build/heddle-threads.wasm")).arrayBuffer();
    using engine = await createWasmEngine({ bytes, threads, spawn });
    return await trainDigest(engine);
  } catch (error) {
    return { error: String(error) };
  }
}
