/**
 * Keeps a session's engine, and finds another when it fails. A GPU that was lost, or gave wrong numbers, is opened anew with
 * its self-test; when that fails too, when it happens again before any work was finished, or when the model does not fit it,
 * the processor takes over for the rest of the session, with a sentence that says why. The sentence stays as long as the kind
 * of engine does: the next one of a kind is opened by name, and "as asked" would be said to people who asked nothing. Nothing of a failed engine is kept:
 * what is worth keeping (residual, moments of the last good round) is in the contributor's notebook.
 */
import { HeddleError } from "../base/assert.ts";
import type { ChosenEngine } from "./choose.ts";

/** A GPU that failed so often since work was last finished is not tried again. */
const GPU_LOSSES_MAX = 2;

export interface Keeper {
  /**
   * `make` with the engine: the first that was chosen, and a new one at every further call. `losses`: engines that failed
   * since work was last finished. Rejects with what `make` or opening threw when the processor cannot do it either.
   */
  use<T>(losses: number, make: (chosen: ChosenEngine) => Promise<T>): Promise<T>;
  [Symbol.dispose](): void;
}

export function keepEngine(first: ChosenEngine, reopen: (wanted: "webgpu" | "wasm") => Promise<ChosenEngine>): Keeper {
  let current: ChosenEngine | undefined = first;
  let kind = first.engine.kind;
  let sentence = first.sentence;
  let fresh = true;
  const drop = (): void => {
    current?.engine[Symbol.dispose]();
    current = undefined;
  };
  const open = async (wanted: "webgpu" | "wasm", why?: string): Promise<ChosenEngine> => {
    drop();
    const opened = await reopen(wanted);
    sentence = why ?? (opened.engine.kind === kind ? sentence : opened.sentence);
    kind = opened.engine.kind;
    current = { engine: opened.engine, sentence };
    return current;
  };
  const useProcessor = async <T>(why: string, make: (chosen: ChosenEngine) => Promise<T>): Promise<T> =>
    make(await open("wasm", `The processor is used from now on: ${why}`));

  return {
    use: async (losses, make) => {
      if (kind === "webgpu" && losses >= GPU_LOSSES_MAX) {
        return useProcessor(`the GPU failed ${losses} times in a row.`, make);
      }
      const mine = fresh ? current : undefined;
      fresh = false;
      const onGpu = kind === "webgpu";
      try {
        return await make(mine ?? (await open(onGpu ? "webgpu" : "wasm")));
      } catch (error) {
        if (!onGpu || !(error instanceof HeddleError)) {
          throw error;
        }
        return useProcessor(`the GPU cannot be used (${error.message}).`, make);
      }
    },
    [Symbol.dispose]: drop,
  };
}
