/**
 * Keeps a session's engine: makes the work on it, goes over to a better one, and finds another when it fails.
 *
 * A session that is to have a GPU begins on the processor while the GPU is opened, compiled for and tested. Between two
 * jobs, never within one, the work then goes over with AdamW's moments; each contribution is computed by one engine. A GPU
 * that is refused, or is slower in a measurement made when nothing else computes, is not gone over to, with a sentence why.
 *
 * A GPU that was lost, or gave wrong numbers, is opened anew with its self-test, in the same way; when that fails too, when it
 * happens again before any work was finished on it, or when the model does not fit it, the processor has the rest of the
 * session, with a sentence that says why. The sentence stays as long as the kind of engine does: the next one of a kind is
 * opened by name, and "as asked" would be said to people who asked nothing. Nothing of a failed engine is kept: what is
 * worth keeping (residual, moments of the last good round) is in the contributor's notebook.
 */
import { HeddleError, messageIn } from "../base/assert.ts";
import { atOnce, createTurn, type InTurn } from "../base/turn.ts";
import { BEGUN, type BegunEngine, type ChosenEngine, type OpenBeside } from "../engines/choose.ts";
import type { Engine } from "../tensor/engine.ts";
import type { EngineInUse, Work } from "./work.ts";

/** A GPU that failed so often since work was last finished on it is not tried again. */
const GPU_LOSSES_MAX = 2;

/** What makes the work, and who is told what it is made on. */
type Making = [make: (engine: Engine) => Promise<Work>, onEngine: (engine: EngineInUse) => void];

export interface Keeper {
  /**
   * The work that `make` makes, on the first engine or on a new one at every further call. `losses`: engines that failed since
   * work was last finished. `onEngine` is told what computes, now and whenever that changes. Rejects with what `make` or
   * opening threw when no engine can do it. Whoever disposes of the work gives up the engine that was being opened for it.
   */
  use(losses: number, ...making: Making): Promise<Work>;
  [Symbol.dispose](): void;
}

export type Reopen = (wanted: "webgpu" | "wasm", inTurn: InTurn) => Promise<ChosenEngine>;

export function keepEngine(first: BegunEngine, reopen: Reopen): Keeper {
  let current: ChosenEngine | undefined = first;
  let kind = first.engine.kind;
  let sentence = first.sentence;
  /** Opens the GPU that work on the processor goes over to; null where there is none. */
  let { ahead } = first;
  let fresh = true;
  /** How often a GPU failed since work was last finished on one. */
  let gpuLosses = 0;

  const drop = (): void => {
    current?.engine[Symbol.dispose]();
    current = undefined;
  };
  const keep = (chosen: ChosenEngine): ChosenEngine => {
    drop();
    current = chosen;
    kind = chosen.engine.kind;
    ({ sentence } = chosen);
    return chosen;
  };
  const open = async (wanted: "webgpu" | "wasm", why?: string): Promise<ChosenEngine> => {
    drop();
    const opened = await reopen(wanted, atOnce);
    return keep({
      engine: opened.engine,
      sentence: why ?? (opened.engine.kind === kind ? sentence : opened.sentence),
    });
  };

  /** Work on the processor that goes over to what `next` opens. */
  const begin = async (next: OpenBeside, chosen: ChosenEngine, ...making: Making): Promise<Work> => {
    const [make, onEngine] = making;
    let work: Work;
    try {
      work = await makeOn(chosen, ...making);
    } catch (error) {
      if (!(error instanceof HeddleError)) {
        throw error;
      }
      // What the processor has no room for waits for the GPU.
      ahead = null;
      drop();
      return makeOn(keep(await next(atOnce)), ...making);
    }
    return goOver(work, {
      open: next,
      make,
      take: (better) => {
        // Whoever starts again, or loses it, begins on the processor again.
        ahead = async (inTurn) => ({ engine: (await reopen("webgpu", inTurn)).engine, sentence: better.sentence });
        onEngine(inUse(keep(better)));
      },
      finish: () => {
        gpuLosses = 0;
      },
      stay: (why) => {
        ahead = null;
        sentence = why;
        onEngine(inUse({ engine: chosen.engine, sentence: why }));
      },
    });
  };

  return {
    use: async (losses, ...making) => {
      const useProcessor = async (why: string): Promise<Work> => {
        ahead = null;
        return makeOn(await open("wasm", `The processor is used from now on: ${why}`), ...making);
      };
      if (kind === "webgpu") {
        gpuLosses = losses === 0 ? 0 : gpuLosses + 1;
        if (gpuLosses >= GPU_LOSSES_MAX) {
          return useProcessor(`the GPU failed ${gpuLosses} times in a row.`);
        }
      }
      const mine = fresh ? current : undefined;
      fresh = false;
      if (ahead !== null) {
        return begin(ahead, mine ?? (await open("wasm", BEGUN)), ...making);
      }
      const onGpu = kind === "webgpu";
      try {
        return await makeOn(mine ?? (await open(onGpu ? "webgpu" : "wasm")), ...making);
      } catch (error) {
        if (!onGpu || !(error instanceof HeddleError)) {
          throw error;
        }
        return useProcessor(`the GPU cannot be used (${error.message}).`);
      }
    },
    [Symbol.dispose]: drop,
  };
}

/** The work on `chosen`, after saying so. */
async function makeOn(chosen: ChosenEngine, ...[make, onEngine]: Making): Promise<Work> {
  onEngine(inUse(chosen));
  return make(chosen.engine);
}

interface Succession {
  readonly open: OpenBeside;
  readonly make: (engine: Engine) => Promise<Work>;
  /** The work is on this engine now, and the one before it may be put away. */
  readonly take: (chosen: ChosenEngine) => void;
  /** Training was finished on the engine that was taken. */
  readonly finish: () => void;
  /** There is nothing to go over to, and why. */
  readonly stay: (why: string) => void;
}

type Next =
  | { readonly type: "not begun" }
  | { readonly type: "opening" }
  | { readonly type: "ready"; readonly chosen: ChosenEngine; readonly work: Work }
  /** Gone over to, or not to be had. */
  | { readonly type: "settled" }
  /** The work was disposed of before. */
  | { readonly type: "given up" };

/**
 * `first`, which goes over to the next engine at the first job that begins after that is ready. It is opened after the first
 * step: a compiler would delay that.
 */
function goOver(first: Work, { open, make, take, finish, stay }: Succession): Work {
  const turn = createTurn();
  let work = first;
  let next = { type: "not begun" } as Next;
  const givenUp = (): boolean => next.type === "given up";
  /** What the next engine times keeps jobs from beginning, and waits for the one under way. */
  const beside: InTurn = (timed) =>
    next.type === "settled"
      ? timed()
      : turn(async () => {
          if (givenUp()) {
            throw new HeddleError("no-engine", "Cannot open the GPU: the work that it was for has ended");
          }
          return timed();
        });
  const settle = (why: string): void => {
    if (!givenUp()) {
      next = { type: "settled" };
      stay(why);
    }
  };
  const refuse = (error: unknown): void =>
    settle(`The processor is used: the GPU cannot be used (${messageIn(error)}).`);
  const getReady = async (): Promise<void> => {
    const chosen = await open(beside);
    let made: Work | undefined;
    try {
      if (chosen.engine.kind === "wasm") {
        settle(chosen.sentence);
      } else if (!givenUp()) {
        made = await make(chosen.engine);
      }
    } finally {
      if (made === undefined || givenUp()) {
        putAway(made, chosen);
      } else {
        next = { type: "ready", chosen, work: made };
      }
    }
  };
  const workNow = async (): Promise<Work> => {
    if (next.type !== "ready") {
      return work;
    }
    const { chosen, work: better } = next;
    const moments = await work.moments();
    try {
      if (moments !== null) {
        await better.restore(moments);
      }
    } catch (error) {
      putAway(better, chosen);
      refuse(error);
      return work;
    }
    next = { type: "settled" };
    work[Symbol.dispose]();
    work = better;
    take(chosen);
    return work;
  };
  const begin = (): void => {
    if (next.type === "not begun") {
      next = { type: "opening" };
      getReady().catch(refuse);
    }
  };

  return {
    train: (assignment, base, options) => {
      const onStep: typeof options.onStep = (step) => {
        options.onStep(step);
        begin();
      };
      return turn(async () => {
        const local = await (await workNow()).train(assignment, base, { ...options, onStep });
        if (work !== first && local.steps > 0) {
          finish();
        }
        return local;
      });
    },
    validate: (...job) => turn(async () => (await workNow()).validate(...job)).finally(begin),
    moments: () => work.moments(),
    restore: (moments) => work.restore(moments),
    [Symbol.dispose]: () => {
      work[Symbol.dispose]();
      if (next.type === "ready") {
        putAway(next.work, next.chosen);
      }
      next = { type: "given up" };
    },
  };
}

function putAway(work: Work | undefined, { engine }: ChosenEngine): void {
  work?.[Symbol.dispose]();
  engine[Symbol.dispose]();
}

function inUse({ engine: { kind, device }, sentence }: ChosenEngine): EngineInUse {
  return { kind, device, sentence };
}
