import { afterEach, expect, test, vi } from "vitest";
import { expose } from "comlink";
import { openTrainer } from "./bridge.ts";

afterEach(() => vi.unstubAllGlobals());

test("openTrainer() reports what fails while a view is drawn on the page, and the worker hears nothing of it", async () => {
  const { port1, port2 } = new MessageChannel();
  const viewed = Promise.withResolvers<void>();
  const surface = {
    open: async (_options: object, onView: (view: object) => Promise<void>) =>
      onView({}).then(viewed.resolve, viewed.reject),
  };
  expose(surface, port2);
  const report = vi.fn();
  vi.stubGlobal("reportError", report);
  vi.stubGlobal("Worker", function Worker() {
    return Object.assign(port1, { terminate: () => port1.close() });
  });
  const fault = new Error("Cannot draw");
  const trainer = openTrainer(
    { relay: "", engine: "auto", duty: 1, peers: false, agent: "" },
    () => {
      throw fault;
    },
    () => undefined,
  );
  await viewed.promise;
  expect(report).toHaveBeenCalledExactlyOnceWith(fault);
  trainer.close();
});
