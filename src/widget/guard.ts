/**
 * Guards the click that gives consent against a host that hides, shrinks or covers the frame: it counts only when the
 * button has been really visible for half a second. Where the browser can tell (IntersectionObserver v2, Chromium) covered
 * or transparent frames are noticed too. A click that comes too early is ignored; one in a frame that is too small, or has
 * stayed hidden, opens the top-level page instead of starting.
 */

/** Least size of the frame, and times that the button must have been visible, or hidden, before that is believed. */
const WIDTH_MIN = 220;
const HEIGHT_MIN = 100;
const VISIBLE_MS = 500;
const HIDDEN_MS = 1_500;

export interface Sight {
  /** Share of the button inside the view, 0 … 1. */
  readonly ratio: number;
  /** Nothing covers it: null where the browser cannot tell. */
  readonly uncovered: boolean | null;
}

/** Whether the button is to be seen, and since when that is so. */
export interface Seen {
  readonly visible: boolean;
  readonly sinceMs: number;
}

export function lookAgain(before: Seen, { ratio, uncovered }: Sight, nowMs: number): Seen {
  const visible = ratio >= 0.95 && uncovered !== false;
  return visible === before.visible ? before : { visible, sinceMs: nowMs };
}

/**
 * What a click does: "counts" as consent, is "ignored" (not made by a person, or too early to tell), or goes "elsewhere", to
 * the top-level page. `trusted` is the event's own word that a person made it; `shownMs` is when the frame showed the button.
 */
export function judgeClick(click: {
  readonly trusted: boolean;
  readonly seen: Seen;
  readonly shownMs: number;
  readonly nowMs: number;
  readonly width: number;
  readonly height: number;
}): "counts" | "ignored" | "elsewhere" {
  const { trusted, seen, shownMs, nowMs, width, height } = click;
  const steadyMs = nowMs - Math.max(seen.sinceMs, shownMs);
  if (!trusted) {
    return "ignored";
  }
  if (width < WIDTH_MIN || height < HEIGHT_MIN) {
    return "elsewhere";
  }
  if (seen.visible) {
    return steadyMs >= VISIBLE_MS ? "counts" : "ignored";
  }
  return steadyMs >= HIDDEN_MS ? "elsewhere" : "ignored";
}

/** Watches an element; the returned function tells what is seen of it. */
export function watchSight(element: Element, nowMs: () => number): () => Seen {
  let seen: Seen = { visible: false, sinceMs: nowMs() };
  const watch = (entries: readonly IntersectionObserverEntry[]): void => {
    const entry = entries.at(-1);
    if (entry !== undefined) {
      const uncovered = (entry as { isVisible?: boolean }).isVisible ?? null;
      seen = lookAgain(seen, { ratio: entry.isIntersecting ? entry.intersectionRatio : 0, uncovered }, nowMs());
    }
  };
  // `trackVisibility` needs a delay of at least 100 ms; browsers without it ignore both.
  const options = { threshold: [0, 0.95, 1], trackVisibility: true, delay: 100 };
  new IntersectionObserver(watch, options).observe(element);
  return () => seen;
}
