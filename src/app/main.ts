/** Entry point of the contributor page: makes the real ports (relay, worker, locks, storage) and registers what a PWA needs. */
import { registerElements } from "../ui/register.ts";
import { safeStore, openPlace } from "../ui/place.ts";
import { openTrainer } from "../ui/bridge.ts";
import { openFeed } from "../ui/feed.ts";
import { mountPage } from "./page.ts";
import { offerInstall, registerServiceWorker } from "./pwa.ts";

const AGENT = "page/0.1.0";

registerElements();
mountPage({
  openFeed: (handlers) => openFeed(location.origin, handlers),
  openTrainer: ({ duty, peers }, onView, onCrash) => {
    const engine = new URLSearchParams(location.search).get("engine");
    return openTrainer(
      {
        relay: location.origin,
        engine: engine === "webgpu" || engine === "wasm" ? engine : "auto",
        duty,
        peers,
        agent: AGENT,
      },
      onView,
      onCrash,
    );
  },
  takePlace: () => openPlace(navigator.locks),
  kept: safeStore(() => localStorage),
  session: safeStore(() => sessionStorage),
  nowMs: () => Date.now(),
});
offerInstall();
registerServiceWorker();
