/** A promise that somebody else settles: `Promise.withResolvers`, which pure code's library does not have yet. */

export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

/** A rejection that nobody waits for is passed over. */
export function createDeferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<T>((settle, fail) => {
    [resolve, reject] = [settle, fail];
  });
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
