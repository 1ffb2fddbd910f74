/**
 * heddle-peers: whether this device exchanges the shared model with other volunteers directly, as a checkbox of its own, never
 * ticked beforehand: it shows them this device's address. What is gained, what is shown and how to end it stand beside it; once
 * it is on, so do the bytes. Emits "heddle-peers" with a boolean as its detail.
 */
import type { PeersView } from "../contributor/view.ts";
import { make, setText } from "./dom.ts";
import { formatBytes } from "./format.ts";

const OFF =
  "Off: the model comes from the relay, and no volunteer sees this device’s IP address. On: volunteers send it to each other " +
  "and see each other’s IP address, which tells roughly where one is. That spares the relay, and the run can take more " +
  "people. At full power at most 1 GB an hour goes out from here; nothing does while you pause.";
const UNABLE = "This browser has no WebRTC, which this needs.";

export class PeersElement extends HTMLElement {
  #on = false;
  #view: PeersView | null = null;
  #input = make("input", { type: "checkbox", id: "peers-input", "aria-describedby": "peers-hint" });
  #hint = make("p", { class: "power-hint", id: "peers-hint" });

  connectedCallback(): void {
    this.#input.disabled = typeof RTCPeerConnection !== "function";
    this.#input.addEventListener("change", () => {
      this.on = this.#input.checked;
      this.dispatchEvent(new CustomEvent("heddle-peers", { detail: this.#on, bubbles: true }));
    });
    const words = "Share the model with other volunteers directly";
    this.replaceChildren(make("label", { class: "peers-head", for: "peers-input" }, this.#input, words), this.#hint);
    this.#draw();
  }

  get on(): boolean {
    return this.#on;
  }

  set on(on: boolean) {
    this.#on = on;
    this.#draw();
  }

  /** What went to and came from others; null before this device takes part. */
  set view(view: PeersView | null) {
    this.#view = view;
    this.#draw();
  }

  #draw(): void {
    this.#input.checked = this.#on;
    setText(this.#hint, this.#input.disabled ? UNABLE : this.#on ? peersSentence(this.#view) : OFF);
  }
}

/** What is shown while it is on. */
export function peersSentence(view: PeersView | null): string {
  const shown =
    "Volunteers who send you the model, or get it from you, see this device’s IP address, until you untick this.";
  if (view === null || !view.on) {
    return shown;
  }
  const { bytesServed, bytesFetched, serving, sentence } = view;
  const now = serving > 0 ? ", sending now" : "";
  return `${shown} Sent to others ${formatBytes(bytesServed)}${now}; got from others ${formatBytes(bytesFetched)}. ${sentence}`.trim();
}
