/** A run's public record over HTTP, as whoever is about to take part asks for it once; pages follow it (`ui/feed.ts`). */
import type { RunView } from "../protocol/run-view.ts";
import { createPatientFetch } from "./later.ts";

/** The record, or undefined where the relay does not answer with one. */
export async function fetchRun(relay: string): Promise<RunView | undefined> {
  const fetch = createPatientFetch();
  const response = await fetch(`${relay}/api/run`, { cache: "no-store" }).catch(() => undefined);
  return response?.ok === true ? ((await response.json()) as RunView) : undefined;
}
