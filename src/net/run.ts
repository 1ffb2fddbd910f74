/** A run's public record over HTTP; pages go on from it with the relay's events (`ui/feed.ts`). */
import type { RunView } from "../protocol/run-view.ts";
import { createPatientFetch } from "./later.ts";

/** The record, or undefined where the relay does not answer with one; a relay that says "later" is asked again then. */
export async function fetchRun(relay: string, fetch = createPatientFetch()): Promise<RunView | undefined> {
  try {
    const response = await fetch(`${relay}/api/run`, { cache: "no-store" });
    return response.ok ? ((await response.json()) as RunView) : undefined;
  } catch {
    return undefined; // nobody answered, or not with JSON
  }
}
