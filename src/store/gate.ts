/**
 * Lets calls through to a store's engine while the store is open, keeps count of what is under way, and turns the engine's
 * failures into HeddleError "store". Bad input, limits and bugs pass as they are.
 */
import { AssertionError, HeddleError, messageIn } from "../base/assert.ts";

export class Gate {
  readonly #release: () => unknown;
  readonly #underway = new Set<Promise<unknown>>();
  #open = true;

  /** `release` gives the engine up; it is called once, when the last call has ended. */
  constructor(release: () => unknown) {
    this.#release = release;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Begins `work` at once. `action` is what the sentence of a failure says that it was for: "read a key". */
  async run<T>(action: string, work: () => Promise<T>): Promise<T> {
    if (!this.#open) {
      throw new HeddleError("store", `Cannot ${action}: the store is closed`);
    }
    const working = work();
    this.#underway.add(working);
    try {
      return await working;
    } catch (error) {
      throw error instanceof HeddleError || error instanceof AssertionError
        ? error
        : new HeddleError("store", `Cannot ${action}: ${messageIn(error)}`, {
            cause: error,
          });
    } finally {
      this.#underway.delete(working);
    }
  }

  /** Waits for what is under way: a lock must not be given up before the last write. */
  async close(): Promise<void> {
    if (this.#open) {
      this.#open = false;
      await Promise.allSettled(this.#underway);
      await this.#release();
    }
  }
}
