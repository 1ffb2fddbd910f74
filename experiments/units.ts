/** Numbers for people: bytes, counts and times in the unit that keeps them short. */

export function bytesText(bytes: number): string {
  return scaled(bytes, ["B", "kB", "MB", "GB", "TB"]);
}

export function countText(count: number): string {
  return scaled(count, ["", "k", "M", "G"]);
}

export function timeText(ms: number): string {
  const seconds = ms / 1_000;
  if (seconds < 120) {
    return `${short(seconds)} s`;
  }
  const minutes = seconds / 60;
  return minutes < 120 ? `${short(minutes)} min` : `${short(minutes / 60)} h`;
}

/** Three digits, and no zeros behind the point that say nothing. */
export function short(value: number): string {
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function scaled(value: number, units: readonly string[]): string {
  const at = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${short(value / 1_000 ** at)} ${units[at] ?? ""}`.trim();
}
