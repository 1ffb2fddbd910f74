/**
 * The run's public record, kept up to date: the whole view from GET /api/run, then server-sent events. Tries again with
 * growing pauses for as long as the page is open; the browser's own reconnection handles short cuts.
 */
import { fetchRun } from "../net/run.ts";
import type { RunView, VersionView } from "../protocol/run-view.ts";

export interface FeedHandlers {
  run(run: RunView): void;
  state(state: "loading" | "live" | "lost"): void;
}

export interface Feed {
  /** Tries at once instead of at the next turn. */
  retry(): void;
  close(): void;
}

const RETRY_MS_MAX = 30_000;
/** Versions kept, as the relay keeps them. */
const VERSIONS_MAX = 10_000;

export function openFeed(relay: string, handlers: FeedHandlers): Feed {
  let run: RunView | null = null;
  let events: EventSource | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let delayMs = 1_000;
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
    source.addEventListener("open", () => {
      delayMs = 1_000;
    });
    source.addEventListener("run", (event) => take(JSON.parse(event.data as string) as RunView));
    source.addEventListener("version", (event) => {
      if (run !== null) {
        take(withVersion(run, JSON.parse(event.data as string) as VersionView));
      }
    });
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

/** The run with a version added; one that is there already is replaced, so that events may repeat. */
export function withVersion(run: RunView, version: VersionView): RunView {
  const others = run.versions.filter((known) => known.version !== version.version);
  const versions = [...others, version].toSorted((a, b) => a.version - b.version).slice(-VERSIONS_MAX);
  return { ...run, versions };
}
