/**
 * What a tuner tried, as a text that an entry point keeps between starts. It is void where anything else would be fastest: on
 * another adapter, in another version of a browser, with other kernels.
 */
import { digestOf, type Digest } from "../base/bytes.ts";
import { ATTENTION_TEXTS } from "./attention.ts";
import { MATMUL_TEXTS } from "./matmul.ts";
import { fits, type AnyRung, type Trial, type Tried } from "./trials.ts";

/** Every text that a candidate is made of. */
export const KERNEL_TEXTS: readonly string[] = [...MATMUL_TEXTS, ...ATTENTION_TEXTS];

/** Of the texts that `exportTried` writes. It is raised when kernels change elsewhere than in their WGSL. */
const VERSION = 3;
const TRIALS_MAX = 64;
/** What is longer is none of ours: so many trials with all their rungs take some 12,000 characters. */
export const TRIED_CHARS_MAX = 16_384;

/** What a rung's speed depends on besides the size of its op. */
export interface Circumstances {
  /** What the adapter says of itself. */
  readonly adapter: string;
  /** The browser and its version, as far as they matter. */
  readonly browser: string;
  /** Digest of the kernels' texts. */
  readonly kernels: string;
}

/** `tried` as a text to keep. */
export function exportTried(tried: Tried, { adapter, browser, kernels }: Circumstances): string {
  // Who trains models of ever new sizes keeps those of the last ones.
  const rungs = Object.fromEntries([...tried].slice(-TRIALS_MAX));
  return JSON.stringify({ version: VERSION, adapter, browser, kernels, rungs });
}

/**
 * `text` with what else was tried according to `kept`, which another engine may have written since; of a trial that both have,
 * the list that got further. A place that is barred stays so.
 */
export function mergeTried(text: string, kept: string, here: Circumstances): string {
  const [mine, theirs] = [importTried(text, here), importTried(kept, here)];
  if (mine === undefined || theirs === undefined) {
    return text;
  }
  if (theirs.size === 0) {
    return kept;
  }
  const merged = new Map(theirs);
  for (const [trial, rungs] of mine) {
    if (rungs.length >= (theirs.get(trial)?.length ?? 0)) {
      merged.delete(trial); // it comes last: it is the newest
      merged.set(trial, rungs);
    }
  }
  return exportTried(merged, here);
}

/** A text for where kernels that a search found compute wrong numbers: it holds until the circumstances change. */
export function barredHere(here: Circumstances): string {
  return exportTried(new Map(), here);
}

/** Whether `text` is one of those, and of the same circumstances. */
export function isBarred(text: string, here: Circumstances): boolean {
  return importTried(text, here)?.size === 0;
}

/** What was tried according to `text`, or undefined if that was elsewhere or it is not one of ours: then tune anew. */
export function importTried(text: string, { adapter, browser, kernels }: Circumstances): Tried | undefined {
  if (text.length > TRIED_CHARS_MAX) {
    return undefined;
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    // A cache that was written by somebody else, or in part, is as good as none.
    return undefined;
  }
  const kept = (typeof parsed === "object" && parsed !== null ? parsed : {}) as Partial<Record<string, unknown>>;
  const { rungs } = kept;
  const here = { version: VERSION, adapter, browser, kernels };
  if (Object.entries(here).some(([name, value]) => kept[name] !== value) || typeof rungs !== "object") {
    return undefined;
  }
  const entries = Object.entries(rungs ?? {});
  return entries.every(isTrial) ? new Map(entries as [Trial, AnyRung[]][]) : undefined;
}

let kernels: Digest | undefined;

/** `adapter`: its identity. */
export function circumstancesOf(adapter: string): Circumstances {
  const browser = /(Firefox|Chrome|Version|Deno|Node\.js)\/\d+/.exec(globalThis.navigator?.userAgent ?? "")?.[0] ?? "";
  kernels ??= digestOf(new TextEncoder().encode(KERNEL_TEXTS.join()));
  return { adapter, browser, kernels };
}

function isTrial([trial, rungs]: readonly [string, unknown]): boolean {
  const [subject = ""] = trial.split(" ");
  return (
    /^\w+ \d{1,3}$/.test(trial) &&
    Array.isArray(rungs) &&
    rungs.length > 0 &&
    rungs.every((rung) => fits(subject, rung))
  );
}
