/**
 * The run's public record, kept up to date: the whole of it from GET /api/run, then what changes by server-sent events. What does
 * not go on from there (another run, a version that was missed or is not what it was) has the whole asked for again. Tries again
 * with growing pauses for as long as the page is open; the browser's own reconnection handles short cuts.
 */
import { fetchRun } from "../net/run.ts";
import type { RunChange, RunView, VersionView } from "../protocol/run-view.ts";

export interface FeedHandlers {
  run(run: RunView): void;
  state(state: "loading" | "live" | "lost"): void;
}

export interface Feed {
  /** Tries at once instead of at the next turn. */
  retry(): void;
  close(): void;
}

const RETRY_MS = 1_000;
const RETRY_MS_MAX = 30_000;
/** Versions kept, as the relay keeps them. */
const VERSIONS_MAX = 10_000;

export function openFeed(relay: string, handlers: FeedHandlers): Feed {
  let run: RunView | null = null;
  let events: EventSource | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let delayMs = RETRY_MS;
  let closed = false;

  function take(next: RunView): void {
    run = next;
    handlers.run(next);
    handlers.state("live");
  }

  function listen(): void {
    events?.close();
    const source = new EventSource(`${relay}/api/events`);
    events = source;
    const hear = (next: RunView | null): void => {
      if (next === null) {
        source.close();
        handlers.state("lost");
        later();
      } else {
        delayMs = RETRY_MS;
        take(next);
      }
    };
    source.addEventListener("change", ({ data }) =>
      hear(run && withChange(run, JSON.parse(data as string) as RunChange)),
    );
    source.addEventListener("version", ({ data }) =>
      hear(run && withVersion(run, JSON.parse(data as string) as VersionView)),
    );
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) {
        later(); // refused: it has no more streams to give, and is asked for the whole record instead
      } else {
        handlers.state("lost");
      }
    });
  }

  async function load(): Promise<void> {
    const loaded = await fetchRun(relay);
    if (closed) {
      return;
    }
    if (loaded === undefined) {
      handlers.state("lost");
      later();
    } else {
      take(loaded);
      listen();
    }
  }

  function later(): void {
    clearTimeout(timer);
    if (!closed) {
      timer = setTimeout(() => void load(), delayMs);
      delayMs = Math.min(RETRY_MS_MAX, delayMs * 2);
    }
  }

  handlers.state("loading");
  void load();
  return {
    retry: () => {
      clearTimeout(timer);
      events?.close();
      void load();
    },
    close: () => {
      closed = true;
      clearTimeout(timer);
      events?.close();
    },
  };
}

/** The run as it has become; null when that does not go on from `known`: of another run, or not with the next version. */
export function withChange(known: RunView, { head, ...change }: RunChange): RunView | null {
  return known.run === change.run ? withVersion({ ...known, ...change }, head) : null;
}

/** The run with the next version, or with the newest once more; null for any other, since then some are missing or were replaced. */
export function withVersion(known: RunView, version: VersionView): RunView | null {
  const newest = known.versions.at(-1);
  if (version.version === newest?.version) {
    return version.digest === newest.digest ? known : null;
  }
  return version.version - 1 === newest?.version
    ? { ...known, versions: [...known.versions, version].slice(-VERSIONS_MAX) }
    : null;
}
