/**
 * Guards the click that gives consent against a host that hides, shrinks or covers the frame: it counts only when the
 * button has been really visible for half a second. Where the browser can tell (IntersectionObserver v2, Chromium) covered
 * or transparent frames are noticed too. A click that does not count opens the top-level page instead of starting.
 */

/** Least size of the frame, and time that the button must have been visible. */
const WIDTH_MIN = 220;
const HEIGHT_MIN = 100;
const VISIBLE_MS = 500;

export interface Sight {
  /** Share of the button inside the view, 0 … 1. */
  readonly ratio: number;
  /** Nothing covers it: null where the browser cannot tell. */
  readonly uncovered: boolean | null;
}

/** When the button became visible, from what it was; null while it is not. */
export function visibleSince(before: number | null, sight: Sight, nowMs: number): number | null {
  return sight.ratio >= 0.95 && sight.uncovered !== false ? (before ?? nowMs) : null;
}

/** Whether a click now counts. `trusted` is the event's own word that a person made it. */
export function clickCounts(click: {
  readonly trusted: boolean;
  readonly sinceMs: number | null;
  readonly nowMs: number;
  readonly width: number;
  readonly height: number;
}): boolean {
  const { trusted, sinceMs, nowMs, width, height } = click;
  return trusted && sinceMs !== null && nowMs - sinceMs >= VISIBLE_MS && width >= WIDTH_MIN && height >= HEIGHT_MIN;
}

/** Watches an element; the returned function tells since when it has been visible. */
export function watchSight(element: Element, nowMs: () => number): () => number | null {
  let since: number | null = null;
  const watch = (entries: readonly IntersectionObserverEntry[]): void => {
    const entry = entries.at(-1);
    if (entry !== undefined) {
      const uncovered = (entry as { isVisible?: boolean }).isVisible ?? null;
      since = visibleSince(since, { ratio: entry.isIntersecting ? entry.intersectionRatio : 0, uncovered }, nowMs());
    }
  };
  // `trackVisibility` needs a delay of at least 100 ms; browsers without it ignore both.
  const options = { threshold: [0, 0.95, 1], trackVisibility: true, delay: 100 };
  new IntersectionObserver(watch, options).observe(element);
  return () => since;
}
