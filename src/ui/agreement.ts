/**
 * What a person agreed to, for which run, and until when. Nothing computes before there is a valid agreement; it ends by
 * itself (30 days in the own app, 24 hours in a widget on someone else's page) and does not carry over to another run.
 * Pure: storage and the time come in as arguments; `consent.ts` is the dialog that asks.
 */

export const APP_AGREEMENT_MS = 30 * 86_400_000;
export const WIDGET_AGREEMENT_MS = 86_400_000;

/** Raised whenever the consent text changes in substance, so that everyone is asked again. */
export const AGREEMENT_TEXT_VERSION = 2;

export interface Agreement {
  readonly text: number;
  /** Digest of the run that was agreed to: its purpose, data and rules. */
  readonly run: string;
  readonly givenMs: number;
  readonly endsMs: number;
}

/** What `localStorage` offers; a page may be denied storage, then the agreement lasts as long as the page. */
export interface TextStore {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export function agree({
  run,
  nowMs,
  lastsMs = APP_AGREEMENT_MS,
}: {
  run: string;
  nowMs: number;
  lastsMs?: number;
}): Agreement {
  return { text: AGREEMENT_TEXT_VERSION, run, givenMs: nowMs, endsMs: nowMs + lastsMs };
}

interface Asked {
  readonly run: string;
  readonly nowMs: number;
  readonly lastsMs?: number;
}

/** Whether work for this run may start now. An agreement from the future (a clock set back) does not count. */
export function covers(agreement: Agreement | null, asked: Asked): boolean {
  return lasts(agreement, asked) && agreement !== null && agreement.givenMs <= asked.nowMs;
}

/**
 * Whether work under the agreement may go on: it is for this run and has not ended. One longer than `lastsMs` (edited, or from a version
 * with longer terms) does not count. A clock that is corrected by a moment while the device works ends nothing.
 */
export function lasts(agreement: Agreement | null, { run, nowMs, lastsMs = APP_AGREEMENT_MS }: Asked): boolean {
  return (
    agreement !== null &&
    agreement.text === AGREEMENT_TEXT_VERSION &&
    agreement.run === run &&
    nowMs < agreement.endsMs &&
    agreement.endsMs - agreement.givenMs <= lastsMs
  );
}

/** Reads what `formatAgreement` wrote; null for anything else. */
export function parseAgreement(text: string | null): Agreement | null {
  if (text === null || text.length > 1_000) {
    return null;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null; // Not ours, or damaged: the person is asked again.
  }
  if (typeof value !== "object" || value === null) {
    return null;
  }
  const record = value as Record<string, unknown>;
  const { run } = record;
  const numbers = [record["text"], record["givenMs"], record["endsMs"]];
  if (typeof run !== "string" || !numbers.every((n) => typeof n === "number" && Number.isFinite(n))) {
    return null;
  }
  const [version, givenMs, endsMs] = numbers as [number, number, number];
  return { text: version, run, givenMs, endsMs };
}

export function formatAgreement(agreement: Agreement): string {
  return JSON.stringify(agreement);
}
