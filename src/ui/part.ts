/**
 * Whether a device takes part at this moment, for whom the page and the widget say so to a screen reader: not from round to round, but when
 * it begins, when it ends, and when something is in the way.
 */
import type { ContributorView } from "../contributor/view.ts";

type Taken = Pick<ContributorView, "status" | "sentence" | "tokensTotal">;

/** What the contributor says between two rounds, each for a fraction of a second; any other sentence then is about trouble. */
const BETWEEN_ROUNDS: ReadonlySet<string> = new Set([
  "Ready; waiting for work.",
  "Fetching the shared base.",
  "The update is sent; waiting for its verdict.",
]);

export function isBetweenRounds({ status, sentence, tokensTotal }: Taken): boolean {
  return (status === "fetching" || status === "waiting") && tokensTotal > 0 && BETWEEN_ROUNDS.has(sentence);
}

export function takesPart(view: Taken): boolean {
  const { status } = view;
  return status === "training" || status === "validating" || status === "uploading" || isBetweenRounds(view);
}

/** The sentence without the seconds that are counted down in it, which would be read out one by one. */
export function withoutCountdown(sentence: string): string {
  return sentence.replace(/ in \d+ s(?=: )/, "");
}
