/** What was opened and has to be closed. */

/** Closes everything that was opened, last first. */
export class Closers {
  readonly #closers: (() => unknown)[] = [];
  add(close: () => unknown): void {
    this.#closers.push(close);
  }
  async close(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) {
      await close();
    }
  }
}
