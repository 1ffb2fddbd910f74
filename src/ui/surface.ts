/**
 * What the training worker offers to a page, in plain data: both ends of the comlink bridge are typed by this file.
 * `train.ts` implements it in the worker, `bridge.ts` is the page's end.
 */
import type { Digest } from "../base/bytes.ts";
import type { ContributorView } from "../contributor/view.ts";

export interface TrainOptions {
  /** Origin of the relay: "https://relay.example". */
  readonly relay: string;
  /** "auto" takes a real GPU where it is faster, else WASM; a software adapter only when "webgpu" is asked for. */
  readonly engine: "auto" | "webgpu" | "wasm";
  /** Share of the time the device works, 0.05 … 1. */
  readonly duty: number;
  /** The person agreed to exchange checkpoints with other contributors directly. */
  readonly peers: boolean;
  /** Name of this program for the relay: "page/0.1.0". */
  readonly agent: string;
}

/** Failures cross as data, because the code of an error does not survive the bridge. */
export type Outcome =
  | { readonly ok: true; readonly sentence: string }
  | { readonly ok: false; readonly code: string; readonly message: string };

export interface GenerateOptions {
  readonly prompt: string;
  readonly count: number;
  readonly temperature: number;
}

/** Gives the page one end of a channel, over which it dials a WebRTC connection and serves it (`net/proxy.ts`). */
export type LendRtc = (port: MessagePort) => void;

export interface TrainSurface {
  /** Remembers the options and whom to tell; nothing is downloaded or computed yet. `lend` is null where the page has no WebRTC. */
  open(options: TrainOptions, onView: (view: ContributorView) => void, lend: LendRtc | null): void;
  /**
   * Chooses the engine the first time, then takes part in `run`, to which the person agreed, and in no other: code "consent" when
   * the relay serves another now. The sentence says which engine and why.
   */
  start(run: Digest): Promise<Outcome>;
  pause(): void;
  resume(): void;
  /** Leaves the run; resolves when nothing computes any more. */
  stop(): Promise<void>;
  setDuty(duty: number): void;
  setPeers(on: boolean): void;
  /** 95th percentile of the page's frame gaps, about once a second; null while the page is not seen. */
  setFrames(gapMs: number | null): void;
  /** Continues the prompt with the newest base, piece by piece; the sentence tells version and engine. */
  generate(options: GenerateOptions, onText: (text: string) => void): Promise<Outcome>;
  abort(): void;
}
