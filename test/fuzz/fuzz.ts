/**
 * Feeds malformed input to a target and watches it: whatever arrives is accepted or refused with a reason, in bounded time, and
 * nothing of it is kept. Anything else is a failure, which names the seed and the number of the input, and shows its bytes.
 */
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { toHex, type Bytes } from "../../src/base/bytes.ts";
import { messageIn } from "../../src/base/assert.ts";
import { createRng } from "../../src/base/rng.ts";
import type { Checked } from "../../src/protocol/verdict.ts";
import { mutated } from "./mutate.ts";

/** Longest time for one input on a busy machine. */
const INPUT_MS_MAX = 10_000;
/** Memory that may be kept, beyond what the target stores on purpose, from a tenth of the inputs on. */
const GROWTH_BYTES_MAX = 8 * 1_048_576;
/** Memory is measured, and honest use tried, so often in a run, and in a small one. */
const WINDOWS = 20;
const WINDOWS_FEW = 3;
const FEW_INPUTS = 5_000;
const HEX_CHARS_MAX = 4_000;

export interface Target {
  readonly name: string;
  /** Inputs of `npm run fuzz`, and of `npm test`. */
  readonly inputs: number;
  readonly inputsInTest: number;
  open(): Promise<Subject>;
}

export interface Subject {
  /** Valid samples, in the order in which they would come; may change from one input to the next. */
  readonly corpus: readonly Bytes[];
  /** Most valid samples that come in their order before a malformed one, where what was said before matters. */
  readonly before?: number;
  /** Inputs at a time, where one waits for a socket. */
  readonly together?: number;
  /** Says "accepted" or the reason of the refusal; throws for a fault. */
  feed(input: Bytes): string | Promise<string>;
  /** Uses the target as it is meant to be used; throws where that fails. */
  useHonestly?(): Promise<void>;
  /** Bytes that it stores on purpose. */
  storedBytes?(): number;
  close?(): Promise<void>;
}

export interface FuzzOptions {
  readonly seed: number;
  readonly inputs: number;
  /** Number of the first input. */
  readonly from?: number;
  /** Told the number of the next input, at the least once a window. */
  readonly onProgress?: (input: number) => void;
}

export interface FuzzReport {
  readonly target: string;
  /** Malformed ones; the valid ones in between are not counted. */
  readonly inputs: number;
  readonly outcomes: ReadonlyMap<string, number>;
  readonly seconds: number;
  readonly heapBefore: number;
  readonly heapAfter: number;
  readonly slowestMs: number;
  /** Null where nothing failed. */
  readonly failure: string | null;
}

/** Runs `inputs` malformed inputs of `seed`; ends at the first failure. */
export async function fuzz(target: Target, { seed, inputs, from = 0, onProgress }: FuzzOptions): Promise<FuzzReport> {
  const outcomes = new Map<string, number>();
  const rejections: unknown[] = [];
  const reject = (error: unknown): void => void rejections.push(error);
  process.on("unhandledRejection", reject);
  const startMs = performance.now();
  const subject = await target.open();
  const windowInputs = Math.max(1, Math.ceil(inputs / (inputs <= FEW_INPUTS ? WINDOWS_FEW : WINDOWS)));
  let [heapBefore, heapAfter, slowestMs, done] = [memoryOf(subject), 0, 0, 0];
  let failure: string | null = null;
  const feed = async (number: number): Promise<void> => {
    const { malformed, valid } = inputOf(target, subject, seed, number);
    let input = malformed;
    try {
      for (input of valid) {
        await subject.feed(input);
      }
      input = malformed;
      const beganMs = performance.now();
      const outcome = await subject.feed(input);
      const tookMs = performance.now() - beganMs;
      slowestMs = Math.max(slowestMs, tookMs);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      if (outcome === "" || tookMs > INPUT_MS_MAX) {
        throw new Error(outcome === "" ? "It was refused without a reason" : `It took ${Math.round(tookMs)} ms`);
      }
    } catch (error) {
      failure ??= failureText(error, { target, seed, number, input });
    }
  };
  const together = subject.together ?? 1;
  for (let at = from; at < from + inputs && failure === null; at += together) {
    const batch = Math.min(together, from + inputs - at);
    if (batch === 1) {
      await feed(at);
    } else {
      await Promise.all(Array.from({ length: batch }, (_, i) => feed(at + i)));
    }
    done += batch;
    if (Math.floor(done / windowInputs) !== Math.floor((done - batch) / windowInputs) || done >= inputs) {
      failure ??= await lookAt(subject, rejections).then(
        () => null,
        (error: unknown) => failureText(error, { target, seed, number: at, input: null }),
      );
      heapAfter = memoryOf(subject);
      heapBefore = done <= Math.max(inputs / 10, windowInputs) ? heapAfter : heapBefore;
      onProgress?.(at + batch);
    }
  }
  if (failure === null && heapAfter - heapBefore > GROWTH_BYTES_MAX) {
    failure = `${target.name}, seed ${seed}: memory grew from ${heapBefore} to ${heapAfter} bytes`;
  }
  await subject.close?.();
  process.off("unhandledRejection", reject);
  const seconds = (performance.now() - startMs) / 1_000;
  return { target: target.name, inputs: done, outcomes, seconds, heapBefore, heapAfter, slowestMs, failure };
}

function inputOf({ name }: Target, { corpus, before = 0 }: Subject, seed: number, number: number) {
  const rng = createRng(name, seed, number);
  const first = rng.below(corpus.length);
  const valid = Array.from({ length: rng.below(before + 1) }, (_, i) => corpus[(first + i) % corpus.length] as Bytes);
  return { valid, malformed: mutated(corpus, rng) };
}

/** Between two windows: promises that nobody looked at, and honest use. */
async function lookAt(subject: Subject, rejections: readonly unknown[]): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  if (rejections.length > 0) {
    throw new Error(`A promise was rejected and nobody looked: ${stackOf(rejections[0])}`);
  }
  await subject.useHonestly?.();
}

function failureText(
  error: unknown,
  { target, seed, number, input }: { target: Target; seed: number; number: number; input: Bytes | null },
): string {
  const bytes = input === null ? "" : `\n  its ${input.length} bytes: ${toHex(input).slice(0, HEX_CHARS_MAX)}`;
  return (
    `${target.name}, input ${number} of seed ${seed}: ${stackOf(error)}${bytes}\n` +
    `  again: npm run fuzz -- ${target.name} --seed ${seed} --from ${number} --count 1   (or, where what came before matters, --count ${number + 1})`
  );
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : messageIn(error);
}

let collect: (() => void) | undefined;

/** Bytes of the heap and outside of it, after a collection. */
function memoryOf(subject: Subject): number {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external - (subject.storedBytes?.() ?? 0);
}

/** What a checked reading came to; throws where the refusal says nothing. */
export function outcomeOf(read: Checked<unknown>): string {
  if (read.ok) {
    return "accepted";
  }
  if (read.detail === "" || read.detail.length > 2_000) {
    throw new Error(`The refusal "${read.reason}" has a detail of ${read.detail.length} characters`);
  }
  return read.reason;
}
