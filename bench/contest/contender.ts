/**
 * What takes part in a comparison: our engine (`ours.ts`) and the peers (`bench/peers/`), each behind this interface. It
 * says what it cannot do by returning undefined, and never why it would be slower.
 */
import type { Outputs, Work } from "./works.ts";

export type Backend = { readonly type: "webgpu" } | { readonly type: "wasm"; readonly threads: number };

export interface Surroundings {
  readonly backend: Backend;
  /** Reads one of the peers' files, by its path in bench/peers/node_modules, as bytes that a runtime can instantiate. */
  readonly fileUrl: (path: string) => string;
  /** Resolves when the device that was opened last, or was opened before the call, has done what was submitted. */
  readonly syncWith: (device: GPUDevice) => Promise<void>;
  /** The device that was opened last. */
  readonly lastDevice: () => GPUDevice;
}

export interface Contender {
  readonly name: string;
  /** Uploads the operands and compiles; undefined when this contender has no such work. */
  prepare(work: Work): Promise<Ready | undefined>;
}

export interface Ready {
  /** Does the work so many times, one after the other, and resolves when the last is done. */
  run(times: number): Promise<void>;
  /** What the last run computed. */
  outputs(): Promise<Outputs>;
  [Symbol.dispose](): void;
}

/** One contender, or several ways in which a peer can do the same works. */
export type OpenContenders = (surroundings: Surroundings) => Promise<readonly Contender[]>;
