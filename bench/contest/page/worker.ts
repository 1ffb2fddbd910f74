/** Entry of a launch in a browser's worker: it gets an order and posts the launch, or what was thrown. */
import { hold, type Order } from "../contest.ts";

self.addEventListener("message", (event: MessageEvent<Order>) => {
  void hold(event.data, {
    maySleep: false,
    loadWasm: async () => {
      const { spawn } = await import("../../../src/wasm/spawn-web.ts");
      const response = await fetch("/build/heddle-threads.wasm");
      return { bytes: await response.arrayBuffer(), spawn };
    },
  }).then(
    (launch) => self.postMessage(launch),
    (error: unknown) => self.postMessage({ thrown: String(error) }),
  );
});
