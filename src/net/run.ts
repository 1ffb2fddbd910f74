/** A run's public record over HTTP; pages go on from it with the relay's events (`ui/feed.ts`). */
import type { RunView } from "../protocol/run-view.ts";
import { createPatientFetch } from "./later.ts";

/** For all tries together: the newest versions are a few kilobytes, all of them may be megabytes on a slow line. */
const FEW_MS_MAX = 20_000;
const ALL_MS_MAX = 60_000;

export interface FetchRunOptions {
  /** The newest so many are enough; default: all. */
  readonly versions?: number;
  readonly timeoutMs?: number;
  readonly fetch?: typeof globalThis.fetch;
}

/** The record, or undefined where the relay does not answer with one; a relay that says "later" is asked again then. */
export async function fetchRun(
  relay: string,
  {
    versions,
    timeoutMs = versions === undefined ? ALL_MS_MAX : FEW_MS_MAX,
    fetch = createPatientFetch(),
  }: FetchRunOptions = {},
): Promise<RunView | undefined> {
  try {
    const query = versions === undefined ? "" : `?versions=${versions}`;
    const response = await fetch(`${relay}/api/run${query}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(timeoutMs),
    });
    return response.ok ? ((await response.json()) as RunView) : undefined;
  } catch {
    return undefined; // nobody answered, or not in time, or not with JSON
  }
}
