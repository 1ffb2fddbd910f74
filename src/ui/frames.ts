/**
 * How smooth the page is: the gaps between animation frames, as their 95th percentile about once a second, so that the
 * training worker can ease off where it makes the page jerk. Frames are watched only while somebody contributes and the page
 * is seen; in a hidden tab browsers give none, and nothing runs here.
 */

/** A reading covers this much time, and so many frames at least. */
const WINDOW_MS = 1_000;
const FRAMES_MIN = 4;
const FRAMES_MAX = 1_024;

/** Collects frame times; `add` returns the 95th percentile of the gaps when a window is full, else null. */
export function createGapWindow(): { add(frameMs: number): number | null } {
  let lastMs: number | undefined;
  let gaps: number[] = [];
  let sumMs = 0;
  return {
    add: (frameMs) => {
      if (lastMs !== undefined) {
        gaps.push(frameMs - lastMs);
        sumMs += frameMs - lastMs;
      }
      lastMs = frameMs;
      if ((sumMs < WINDOW_MS || gaps.length < FRAMES_MIN) && gaps.length < FRAMES_MAX) {
        return null;
      }
      const gapMs = percentile(gaps, 0.95);
      gaps = [];
      sumMs = 0;
      return gapMs;
    },
  };
}

/** The smallest of `values` that at least `share` of them do not exceed; NaN of none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** Reports gaps while the page is seen, and null when it is no longer; the returned function ends it. */
export function watchFrames(onGap: (gapMs: number | null) => void): () => void {
  let frame = 0;
  const begin = (): void => {
    cancelAnimationFrame(frame);
    if (document.visibilityState === "hidden") {
      onGap(null);
      return;
    }
    const { add } = createGapWindow();
    const look = (frameMs: number): void => {
      const gapMs = add(frameMs);
      if (gapMs !== null) {
        onGap(gapMs);
      }
      frame = requestAnimationFrame(look);
    };
    frame = requestAnimationFrame(look);
  };
  document.addEventListener("visibilitychange", begin);
  begin();
  return () => {
    cancelAnimationFrame(frame);
    document.removeEventListener("visibilitychange", begin);
  };
}
