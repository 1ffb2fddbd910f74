/**
 * Where the relay computes: it holds the head's parameters and outer state, in the memory of the crew that merges, measures one update at a time with the referee,
 * and makes the next version, which it takes over once the ledger has it.
 */
import type { Digest } from "../base/bytes.ts";
import { createDeferred } from "../base/deferred.ts";
import type { Charter } from "../protocol/charter.ts";
import type { Losses, VersionInfo } from "../protocol/messages.ts";
import type { Blobs } from "../store/store.ts";
import type { MeasureFacts } from "../trust/measure.ts";
import type { Base, Crew } from "../update/crew.ts";
import { mergeRound, readUpdate, type NextBase, type Referee } from "./base.ts";
import type { Contribution, DurableState } from "./state.ts";
import type { Effect } from "./live.ts";

export interface WorkbenchOptions {
  readonly blobs: Blobs;
  readonly referee: Referee;
  /** Used by nobody else; the base lies in its memory. */
  readonly crew: Crew;
  readonly charter: Charter;
  readonly base: Base;
  readonly log: (sentence: string) => void;
}

type Turn = () => Promise<void>;

export class Workbench {
  readonly #options: WorkbenchOptions;
  #base: Base;
  #next: NextBase | null = null;
  /** What is to be measured, and the end of it all while there is something. */
  readonly #waiting: { readonly again: Turn[]; readonly anew: Turn[] } = { again: [], anew: [] };
  #measuring: Promise<void> | null = null;

  constructor(options: WorkbenchOptions) {
    this.#options = options;
    this.#base = options.base;
  }

  /**
   * Measures a contribution, one at a time, those that a validator has measured first. `wanted` is asked when its turn comes. Null where
   * it has a verdict by then or is gone, and when the referee fails, which is logged.
   */
  measure(
    wanted: () => Contribution | undefined,
    { facts, again }: Pick<Extract<Effect, { readonly type: "measure" }>, "facts" | "again">,
  ): Promise<Losses | null> {
    const { promise, resolve, reject } = createDeferred<Losses | null>();
    const turn = async (): Promise<void> => {
      const found = wanted();
      await (found?.verdict === null ? this.#measure(found, facts) : Promise.resolve(null)).then(resolve, reject);
    };
    this.#waiting[again ? "again" : "anew"].push(turn);
    this.#measuring ??= this.#measureAll();
    return promise;
  }

  async #measureAll(): Promise<void> {
    const { again, anew } = this.#waiting;
    await Promise.resolve(); // until those who ask at the same time have asked
    for (let turn = again.shift() ?? anew.shift(); turn !== undefined; turn = again.shift() ?? anew.shift()) {
      await turn();
    }
    this.#measuring = null;
  }

  async #measure(contribution: Contribution, facts: MeasureFacts): Promise<Losses | null> {
    const { blobs, charter, referee, log } = this.#options;
    const { params } = this.#base;
    const update = await readUpdate(blobs, contribution, params.length, charter);
    return referee.measure(params, update, facts).catch((error: unknown) => {
      log(`The referee could not measure contribution ${contribution.id}: ${String(error)}`);
      return null;
    });
  }

  /** Computes and stores the next version of `durable`'s head. */
  async merge(
    durable: DurableState,
    { contributions }: Extract<Effect, { readonly type: "merge" }>,
  ): Promise<{ readonly head: VersionInfo; readonly server: Digest }> {
    const { blobs, charter, referee, crew } = this.#options;
    await this.#measuring; // what it measures on may lie where the next version is written
    const options = { blobs, referee, crew, charter, durable, base: this.#base, contributions };
    const next = await mergeRound(options);
    this.#next = next;
    return next;
  }

  /** The ledger's head is `head`: the version made last becomes the base, if it is that one. */
  adopt(head: VersionInfo): void {
    if (this.#next?.head.version === head.version) {
      const { params, server } = this.#base;
      const { memory } = this.#options.crew;
      memory.give(params.buffer);
      memory.give(server.bytes.buffer);
      this.#base = this.#next.base;
      this.#next = null;
    }
  }
}
