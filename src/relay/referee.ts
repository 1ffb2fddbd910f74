/**
 * The relay's end of its referee: starts the thread (`referee-thread.ts`) and hands measurements over to it. One measurement
 * runs at a time; the rest wait on the thread.
 */
import { Worker } from "node:worker_threads";
import { wrap, type Remote } from "comlink";
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { HeddleError } from "../base/assert.ts";
import type { Referee } from "../coordinator/host.ts";
import type { Charter } from "../protocol/charter.ts";
import type { RefereeThread } from "./referee-thread.ts";

export interface RefereeHandle extends Referee {
  /** Resolves with the reason when the thread is gone, other than by `close`: nothing can be measured any more. */
  readonly died: Promise<unknown>;
  close(): Promise<void>;
}

/** Throws HeddleError "bad-input" when the charter's model does not fit the WASM engine, or its data the model. */
export async function startReferee(
  charter: Charter,
  train: readonly Uint8Array[],
  evaluation: readonly Uint8Array[],
): Promise<RefereeHandle> {
  const worker = new Worker(new URL("./referee-thread.ts", import.meta.url), { name: "referee" });
  const failed = new Promise<never>((_resolve, reject) => {
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`The referee's thread ended with code ${code}`)));
  });
  const died = failed.catch((error: unknown) => error);
  const thread: Remote<RefereeThread> = wrap(nodeEndpoint(worker));
  await Promise.race([thread.open(charter, train, evaluation), failed]).catch(revive);
  return {
    died,
    evaluate: (params) => Promise.race([thread.evaluate(params), failed]).catch(revive),
    measure: (base, update, facts) => Promise.race([thread.measure(base, update, facts), failed]).catch(revive),
    close: async () => {
      worker.removeAllListeners("exit");
      await worker.terminate();
    },
  };
}

/** Errors lose their class between threads; a sentence for people becomes one again. */
function revive(error: unknown): never {
  if (error instanceof Error && error.name === "HeddleError") {
    throw new HeddleError("bad-input", `Cannot serve this run here: ${error.message}`, { cause: error });
  }
  throw error;
}
