/** Entry of a launch in a browser's worker: it gets an order and posts the launch, or what was thrown. */
import { hold, type Order } from "../contest.ts";

self.addEventListener("message", (event: MessageEvent<Order>) => {
  void hold(event.data, { maySleep: false }).then(
    (launch) => self.postMessage(launch),
    (error: unknown) => self.postMessage({ thrown: String(error) }),
  );
});
