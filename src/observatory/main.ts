/** Entry point of the observatory (`observatory.html`): makes the real ports (relay, workers, storage, address). */
import { ChartElement } from "../ui/chart.ts";
import { openFeed } from "../ui/feed.ts";
import { openObservatory } from "../ui/observatory-link.ts";
import { safeStore } from "../ui/place.ts";
import { ScrubElement } from "../ui/scrub.ts";
import { TraceElement } from "../ui/trace.ts";
import { mountObservatory } from "./page.ts";

customElements.define("heddle-chart", ChartElement);
customElements.define("heddle-scrub", ScrubElement);
customElements.define("heddle-trace", TraceElement);

declare global {
  interface HTMLElementTagNameMap {
    "heddle-scrub": ScrubElement;
    "heddle-trace": TraceElement;
  }
}

/** `?round=23` in the address: a link shows the run as it was then. */
const address = {
  read: (): number | null => {
    const text = new URLSearchParams(location.search).get("round") ?? "";
    return /^\d{1,9}$/.test(text) ? Number(text) : null;
  },
  write: (round: number | null): void => {
    const url = new URL(location.href);
    url.searchParams.delete("round");
    if (round !== null) {
      url.searchParams.set("round", String(round));
    }
    if (url.href !== location.href) {
      history.replaceState(null, "", url);
    }
  },
};

mountObservatory({
  relay: location.origin,
  openFeed: (handlers) => openFeed(location.origin, handlers),
  openWorker: openObservatory,
  kept: safeStore(() => localStorage),
  address,
  nowMs: () => Date.now(),
});
