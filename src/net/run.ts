/** A run's public record over HTTP; pages go on from it with the relay's events (`ui/feed.ts`). */
import type { RunView } from "../protocol/run-view.ts";
import { createPatientFetch } from "./later.ts";

export interface FetchRunOptions {
  /** The newest so many are enough; default: all, which may be megabytes. */
  readonly versions?: number;
  readonly fetch?: typeof globalThis.fetch;
}

/** The record, or undefined where the relay does not answer with one; a relay that says "later" is asked again then. */
export async function fetchRun(
  relay: string,
  { versions, fetch = createPatientFetch() }: FetchRunOptions = {},
): Promise<RunView | undefined> {
  try {
    const query = versions === undefined ? "" : `?versions=${versions}`;
    const response = await fetch(`${relay}/api/run${query}`, { cache: "no-store" });
    return response.ok ? ((await response.json()) as RunView) : undefined;
  } catch {
    return undefined; // nobody answered, or not with JSON
  }
}
