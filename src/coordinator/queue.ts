/** One thing after the other: jobs run in the order they were added, and whoever asks is told when all work is done. */

export class Queue {
  #last: Promise<void> = Promise.resolve();
  #working = 0;
  #waiters: (() => void)[] = [];
  #failure: unknown = null;
  readonly #onFailure: (error: unknown) => void;

  /** `onFailure` is called once, with the first error; after it no job is begun. */
  constructor(onFailure: (error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  /** Runs `job` after all jobs added before. */
  add(job: () => Promise<void>): void {
    this.#last = this.track(() => this.#last.then(() => (this.#failure === null ? job() : undefined)));
  }

  /** Runs `work` beside the jobs; `settled` waits for it too. Resolves when it has ended, well or not. */
  track(work: () => Promise<void>): Promise<void> {
    this.#working += 1;
    return work()
      .catch((error: unknown) => {
        if (this.#failure === null) {
          this.#failure = error ?? new Error("unknown failure");
          this.#onFailure(error);
        }
      })
      .finally(() => {
        this.#working -= 1;
        if (this.#working === 0) {
          const waiters = this.#waiters;
          this.#waiters = [];
          waiters.forEach((wake) => wake());
        }
      });
  }

  /** Resolves when nothing is left to do; rejects with the failure that ended the work, if one did. */
  async settled(): Promise<void> {
    while (this.#working > 0) {
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
      });
    }
    if (this.#failure !== null) {
      throw this.#failure;
    }
  }
}
