/**
 * Numbers, sizes and times as people read them. Everything goes through `Intl`, so a page in another language gets its own
 * separators; units are words or SI symbols. Pure: the time of day comes in as an argument.
 */

const KILO = 1_000;

/** "1,234"; three significant digits below 100. Not-a-number and infinities are shown as an en dash. */
export function formatCount(value: number, lang = "en"): string {
  if (!Number.isFinite(value)) {
    return "–";
  }
  const digits = Math.abs(value) < 10 && !Number.isInteger(value) ? 1 : 0;
  return numbers(lang, { maximumFractionDigits: digits }).format(value);
}

/** "12 k", "3.4 M": at most three significant digits and an SI letter. */
export function formatShort(value: number, lang = "en"): string {
  if (!Number.isFinite(value)) {
    return "–";
  }
  const units = ["", "k", "M", "G", "T"];
  let unit = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 999.5 && unit < units.length - 1) {
    scaled /= KILO;
    unit += 1;
  }
  // What is below a hundredth is shown as nothing, not as a row of zeros.
  const shown = Math.abs(scaled) < 0.01 ? 0 : scaled;
  const text = numbers(lang, { maximumSignificantDigits: 3 }).format(shown);
  return unit === 0 ? text : `${text}\u00a0${units[unit]}`;
}

/** "0 B", "1.2 MB": decimal units, three significant digits. */
export function formatBytes(bytes: number, lang = "en"): string {
  const text = formatShort(bytes, lang);
  if (text === "–") {
    return text;
  }
  return /[kMGT]$/.test(text) ? `${text}B` : `${text}\u00a0B`;
}

/** A loss in nats per token, three decimals: "2.314". */
export function formatLoss(loss: number, lang = "en"): string {
  if (!Number.isFinite(loss)) {
    return "–";
  }
  return numbers(lang, { minimumFractionDigits: 3, maximumFractionDigits: 3 }).format(loss);
}

/** A share 0 … 1 as a whole percentage: "45 %". */
export function formatShare(share: number): string {
  return Number.isFinite(share) ? `${Math.round(share * 100)}\u00a0%` : "–";
}

/** How long ago `thenMs` was: "just now", "4 min ago", "2 h ago", "3 d ago". A time in the future counts as now. */
export function formatAgo(thenMs: number, nowMs: number): string {
  const seconds = Math.max(0, (nowMs - thenMs) / 1_000);
  if (!Number.isFinite(seconds)) {
    return "–";
  }
  if (seconds < 45) {
    return "just now";
  }
  if (seconds < 3_570) {
    return `${Math.max(1, Math.round(seconds / 60))}\u00a0min ago`;
  }
  if (seconds < 84_600) {
    return `${Math.max(1, Math.round(seconds / 3_600))}\u00a0h ago`;
  }
  return `${Math.max(1, Math.round(seconds / 86_400))}\u00a0d ago`;
}

/** "1 contributor", "3 contributors". */
export function formatPlural(count: number, one: string, many: string, lang = "en"): string {
  return `${formatCount(count, lang)} ${count === 1 ? one : many}`;
}

/** With a full stop at its end. */
export function asSentence(text: string): string {
  const trimmed = text.trim();
  return /[.!?…]$/.test(trimmed) || trimmed === "" ? trimmed : `${trimmed}.`;
}

/** Formatters made so far: making one takes a hundred times as long as using it. */
const made = new Map<string, Intl.NumberFormat>();

function numbers(lang: string, options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = `${lang} ${JSON.stringify(options)}`;
  const known = made.get(key) ?? new Intl.NumberFormat(lang, options);
  made.set(key, known);
  return known;
}
