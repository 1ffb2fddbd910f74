/** Entry of a WASM engine's thread in a web worker (browsers, Deno); `src/wasm/spawn-web.ts` starts it. */
import { serveThread, type ThreadStart } from "../src/wasm/thread.ts";

self.addEventListener(
  "message",
  (event: MessageEvent<ThreadStart>) => {
    void serveThread(event.data, () => self.postMessage("ready")).finally(() => self.close());
  },
  { once: true },
);
