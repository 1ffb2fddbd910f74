/** What makes the page an app: its service worker, a quiet word when a newer page is ready, and the install button. */
import { byId } from "../ui/dom.ts";

/** Chromium's event, which the type library does not have. */
interface InstallPrompt extends Event {
  prompt(): Promise<{ outcome: string }>;
}

/** Shows the install button once the browser offers installation. */
export function offerInstall(): void {
  const button = byId<HTMLButtonElement>("install");
  addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault();
    button.hidden = false;
    button.onclick = () => {
      button.hidden = true;
      void (event as InstallPrompt).prompt();
    };
  });
  addEventListener("appinstalled", () => {
    button.hidden = true;
  });
}

/** Only in secure contexts, after the page has loaded, so that it costs the first visit nothing. */
export function registerServiceWorker(): void {
  if (!isSecureContext || !("serviceWorker" in navigator) || import.meta.env.DEV) {
    return;
  }
  const start = (): void => {
    navigator.serviceWorker.register("/sw.js").then(watch, () => {
      // Private windows may deny it; the page works the same, only not offline.
    });
  };
  if (document.readyState === "complete") {
    start();
  } else {
    addEventListener("load", start, { once: true });
  }
}

/** A waiting version takes over only when the person says so: training is never interrupted by an update. */
function watch(registration: ServiceWorkerRegistration): void {
  const show = async (waiting: ServiceWorker): Promise<void> => {
    if (await isNewest()) {
      return; // the waiting version takes over when this and other tabs are closed
    }
    byId("update").hidden = false;
    byId("update-now").onclick = () => {
      if (waiting.state !== "installed") {
        location.reload(); // another tab has let it take over, or a newer one has come
        return;
      }
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      waiting.postMessage({ type: "take-over" });
    };
  };
  if (registration.waiting !== null && navigator.serviceWorker.controller !== null) {
    void show(registration.waiting);
  }
  registration.addEventListener("updatefound", () => {
    const next = registration.installing;
    next?.addEventListener("statechange", () => {
      if (next.state === "installed" && navigator.serviceWorker.controller !== null) {
        void show(next);
      }
    });
  });
}

/**
 * The page comes from the relay where it can: right after an update it is the newer one already. Asked for under the name that the service
 * worker leaves to the relay; from "/" the kept page may answer, which is as old as this one. Where the relay does not tell, it is not known
 * to be the newest.
 */
async function isNewest(): Promise<boolean> {
  const script = document.querySelector<HTMLScriptElement>("script[src]");
  try {
    const response = await fetch("/index.html", { cache: "no-store" });
    return response.ok && (await response.text()).includes(new URL(script?.src ?? "").pathname);
  } catch {
    return false;
  }
}
