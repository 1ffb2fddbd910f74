/** Gives the elements of the contributor page their names. Kept apart from the classes, so that importing one has no effect. */
import { ChartElement } from "./chart.ts";
import { ConsentElement } from "./consent.ts";
import { ContributionsElement } from "./contributions.ts";
import { MeterElement } from "./meter.ts";
import { PeersElement } from "./peers.ts";
import { PowerElement } from "./power.ts";
import { ThreadsElement } from "./threads.ts";
import { TryElement } from "./try.ts";

const ELEMENTS = {
  "heddle-chart": ChartElement,
  "heddle-consent": ConsentElement,
  "heddle-contributions": ContributionsElement,
  "heddle-meter": MeterElement,
  "heddle-peers": PeersElement,
  "heddle-power": PowerElement,
  "heddle-threads": ThreadsElement,
  "heddle-try": TryElement,
} as const;

/** Idempotent. */
export function registerElements(): void {
  for (const [name, element] of Object.entries(ELEMENTS)) {
    if (customElements.get(name) === undefined) {
      customElements.define(name, element);
    }
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "heddle-chart": ChartElement;
    "heddle-consent": ConsentElement;
    "heddle-contributions": ContributionsElement;
    "heddle-meter": MeterElement;
    "heddle-peers": PeersElement;
    "heddle-power": PowerElement;
    "heddle-threads": ThreadsElement;
    "heddle-try": TryElement;
  }
}
