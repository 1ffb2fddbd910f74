/**
 * This device's contributions over reloads: what the running session knows, and what earlier ones left in the browser's
 * storage for the same run. Pure.
 */
import type { ContributionItem } from "./contributions.ts";

/** Kept on the device; the oldest go first. */
export const HISTORY_MAX = 50;

const UNANSWERED = "The page was closed before a verdict arrived.";

/** The live items, then earlier ones that the session does not know, newest first. */
export function mergeHistory(
  live: readonly ContributionItem[],
  earlier: readonly ContributionItem[],
): readonly ContributionItem[] {
  const known = new Set(live.map((item) => item.id));
  const old = earlier
    .filter((item) => !known.has(item.id))
    .map((item): ContributionItem => (item.state === "waiting" ? { ...item, sentence: UNANSWERED } : item));
  return [...live, ...old].toSorted((a, b) => b.sentMs - a.sentMs).slice(0, HISTORY_MAX);
}

export function formatHistory(run: string, items: readonly ContributionItem[]): string {
  return JSON.stringify({ run, items });
}

/** Reads what `formatHistory` wrote for this run; empty for anything else. */
export function parseHistory(text: string | null, run: string): readonly ContributionItem[] {
  if (text === null || text.length > 100_000) {
    return [];
  }
  try {
    const value = JSON.parse(text) as { run?: unknown; items?: unknown } | null;
    return value?.run === run && Array.isArray(value.items) ? value.items.filter(isItem).slice(0, HISTORY_MAX) : [];
  } catch {
    return []; // Damaged: the list begins anew.
  }
}

function isItem(value: unknown): value is ContributionItem {
  if (typeof value !== "object" || value === null) {
    return false;
  }
  const item = value as Record<string, unknown>;
  const numbers = [item["round"], item["sentMs"], item["wireBytes"], item["steps"], item["loss"]];
  return (
    typeof item["id"] === "string" &&
    typeof item["sentence"] === "string" &&
    (item["state"] === "waiting" || item["state"] === "accepted" || item["state"] === "refused") &&
    numbers.every((n) => typeof n === "number" && Number.isFinite(n)) &&
    Math.abs(item["sentMs"] as number) < 8e15
  );
}
