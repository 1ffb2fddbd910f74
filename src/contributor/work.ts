/**
 * The work itself: inner steps on this device's data, and the measurement of others' updates. `Work` is what the session
 * runner calls; `createWork` is the production one over an engine. Private texts enter here and nowhere else: nothing that
 * the runner sends or stores has passed through its hands except parameters, losses and counts.
 */
import { HeddleError } from "../base/assert.ts";
import type { Bytes, ContributorId } from "../base/bytes.ts";
import { sleep, type Clock } from "../base/clock.ts";
import type { StopSignal } from "../base/stop.ts";
import { batchAt } from "../data/batch.ts";
import type { Corpus } from "../data/corpus.ts";
import type { Neighbour } from "../engines/pace.ts";
import { rateShare } from "../protocol/decay.ts";
import { createEvaluator, type Evaluator } from "../model/evaluator.ts";
import { createTrainer } from "../model/trainer.ts";
import type { Charter } from "../protocol/charter.ts";
import type { Moments } from "../model/trainer.ts";
import type { Losses, TrainAssignment, ValidateAssignment } from "../protocol/messages.ts";
import type { Engine, EngineKind } from "../tensor/engine.ts";
import { measureLosses } from "../trust/measure.ts";
import type { SparseUpdate } from "../update/unpack.ts";
import { packOnEngine, type Feed, type Packed } from "./packing.ts";

/** Parameters [P] that are still on the engine, until its next job begins. */
export interface OnEngine {
  /** Packs what became of the parameters, there. */
  pack(feed: Feed): Promise<Packed>;
  parameters(): Promise<Float32Array<ArrayBuffer>>;
}

/** What training made of the parameters that it began with. */
export interface LocalRun {
  /** [P] */
  readonly after: Float32Array<ArrayBuffer> | OnEngine;
  /** Mean loss of each step, nats per token. */
  readonly losses: readonly number[];
  readonly steps: number;
  readonly tokens: number;
}

export interface JobOptions {
  /** By the clock that the work was created with. */
  readonly deadlineMs: number;
  /** Once `aborted` or `ended` is true the work ends after the step at hand. */
  readonly signal: StopSignal;
  readonly onStep: (step: { readonly step: number; readonly tokens: number; readonly loss: number }) => void;
}

export interface TrainOptions extends JobOptions {
  /** Which of the assignment's batches comes first; 0 by default. */
  readonly firstStep?: number;
}

export interface Work {
  /**
   * Trains from parameters `from` [P], which stay, until `stepsMax`, the deadline or the signal; one step at least unless
   * stopped before it.
   */
  train(assignment: TrainAssignment, from: Float32Array, options: TrainOptions): Promise<LocalRun>;
  /** What `update` does to the losses of `base`, as the assignment says (`trust/measure.ts`). */
  validate(
    assignment: ValidateAssignment,
    base: Float32Array,
    update: SparseUpdate,
    options: JobOptions,
  ): Promise<Losses>;
  /** Null before the first step. */
  moments(): Promise<Moments | null>;
  restore(moments: Moments): Promise<void>;
  [Symbol.dispose](): void;
}

/** What the runner knows when it wants the engine; the entry point adds the engine and, for members, the private texts. */
export interface WorkContext {
  readonly charter: Charter;
  readonly contributor: ContributorId;
  /** The charter's open texts, one a shard. */
  readonly texts: readonly Bytes[];
  /** Engines that failed since training was last finished. */
  readonly losses: number;
  /** To be told when the work is on another engine than this contributor was made with. */
  readonly onEngine: (engine: EngineInUse) => void;
}

/** What computes, for the relay's record and for people. */
export interface EngineInUse {
  readonly kind: EngineKind;
  readonly device: string;
  /** Why this one. */
  readonly sentence: string;
}

export type CreateWork = (context: WorkContext) => Promise<Work>;

export interface WorkOptions {
  readonly engine: Engine;
  readonly charter: Charter;
  readonly contributor: ContributorId;
  /** The charter's open texts: others' work is measured on them, and one's own trained on them. */
  readonly corpus: Corpus;
  /** A member's own texts: trained on instead. */
  readonly privateCorpus?: Corpus;
  readonly clock: Clock;
  /** Lets the device rest after each step, where the engine has not rested within it. */
  readonly pace: Pick<Neighbour, "work">;
}

/**
 * Compiles training on `engine`, and evaluation when it is first needed; the engine stays the caller's. Throws HeddleError
 * "model-too-big" when the device cannot hold them, "bad-input" when the texts are shorter than one sequence.
 */
export async function createWork(options: WorkOptions): Promise<Work> {
  const { engine, charter, contributor, corpus, privateCorpus, clock, pace } = options;
  const { model, inner } = charter;
  const trainer = await createTrainer(engine, { model, inner, thrift: "as needed" });
  /** Compiled when others' work is first measured, so that training begins sooner. */
  let evaluator: Promise<Evaluator> | undefined;
  const own = privateCorpus ?? corpus;
  let steps = 0;

  return {
    train: async (assignment, from, { deadlineMs, signal, onStep, firstStep = 0 }) => {
      trainer.load(from);
      const losses: number[] = [];
      while (losses.length < assignment.stepsMax && !signal.aborted) {
        const { seed, round } = assignment;
        const step = firstStep + losses.length;
        const place = { seed, round, contributor, step, batch: inner.batch, time: model.time };
        await pace.work(
          async () => {
            const { loss, norm } = await trainer.step(batchAt(own, place), rateShare(charter.round, round));
            mustBeFinite("the loss", loss, losses.length + 1);
            mustBeFinite("the gradients’ norm", norm, losses.length + 1);
            losses.push(loss);
            steps += 1;
            onStep({ step: losses.length, tokens: trainer.tokensPerStep, loss });
          },
          { signal, deadlineMs },
        );
        // The event loop turns after each step, so that pause and stop act on an engine that never waits.
        await sleep(clock, 0);
        if (signal.ended || clock.nowMs() >= deadlineMs) {
          break;
        }
      }
      const kept: OnEngine = { pack: (feed) => packOnEngine(engine, feed), parameters: () => trainer.parameters() };
      const after = charter.uplink.bits === 64 ? await trainer.parameters() : kept;
      return { after, losses, steps: losses.length, tokens: losses.length * trainer.tokensPerStep };
    },
    validate: async (assignment, base, update, { signal, deadlineMs }) => {
      evaluator ??= createEvaluator(engine, { model, batch: inner.batch });
      const ready = await evaluator.catch((error: unknown) => {
        evaluator = undefined; // what does not fit now may fit another time
        throw error;
      });
      return pace.work(
        async () => {
          const losses = await measureLosses({ evaluator: ready, base, update, corpus, facts: assignment, charter });
          // Others' updates may do anything to the loss; that of the shared base is a number on any device that computes right.
          mustBeFinite("the loss of the shared base", losses.randomBefore);
          return losses;
        },
        { signal, deadlineMs },
      );
    },
    moments: async () => (steps === 0 ? null : trainer.moments()),
    restore: async (moments) => {
      if (moments.m.length === trainer.size && moments.v.length === trainer.size) {
        trainer.restoreMoments(moments);
        steps = moments.t;
      }
    },
    [Symbol.dispose]: () => {
      trainer[Symbol.dispose]();
      evaluator?.then(
        (made) => made[Symbol.dispose](),
        () => undefined, // there is none: whoever wanted it has been told
      );
    },
  };
}

/** Throws HeddleError "device-wrong": what follows from such a number is not trained on and not sent. */
function mustBeFinite(what: string, value: number, step?: number): void {
  if (!Number.isFinite(value)) {
    const when = step === undefined ? "" : ` in step ${step}`;
    throw new HeddleError("device-wrong", `${what} came out as ${value}${when}; this round’s work is thrown away`);
  }
}
