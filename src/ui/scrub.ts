/**
 * heddle-scrub: goes back to any round of a run and returns to the present. A native slider carries keys, touch and its value
 * to assistive technology; two buttons take single steps. It knows positions only: who uses it says what each one is called.
 */
import { make, setText } from "./dom.ts";

export interface ScrubState {
  /** Positions are 0 … last. */
  readonly last: number;
  readonly at: number;
  /** Follows the newest position. */
  readonly live: boolean;
  /** What is shown, in a few words: the slider's value text. */
  readonly words: string;
}

export class ScrubElement extends HTMLElement {
  #state: ScrubState = { last: 0, at: 0, live: true, words: "" };
  #words = make("p", { class: "scrub-words" });
  #input = make("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Round" });
  #back = make("button", { type: "button", class: "button step", "aria-label": "One round earlier" }, "−");
  #on = make("button", { type: "button", class: "button step", "aria-label": "One round later" }, "+");
  #now = make("button", { type: "button", class: "button small" }, "Back to now");

  connectedCallback(): void {
    if (this.#words.isConnected) {
      return;
    }
    const row = make("div", { class: "scrub-row" }, this.#back, this.#input, this.#on);
    this.replaceChildren(make("div", { class: "scrub-head" }, this.#words, this.#now), row);
    this.#input.addEventListener("input", () => this.#go(this.#input.valueAsNumber));
    this.#back.addEventListener("click", () => this.#go(this.#state.at - 1));
    this.#on.addEventListener("click", () => this.#go(this.#state.at + 1));
    this.#now.addEventListener("click", () => {
      this.#go(this.#state.last);
      this.#input.focus();
    });
    this.#draw();
  }

  get state(): ScrubState {
    return this.#state;
  }

  set state(state: ScrubState) {
    this.#state = state;
    this.#draw();
  }

  /** Tells the position wanted; the last one means the present. */
  #go(at: number): void {
    const { last } = this.#state;
    const detail = Math.min(last, Math.max(0, at));
    this.dispatchEvent(new CustomEvent("heddle-scrub", { detail, bubbles: true }));
  }

  #draw(): void {
    const { last, at, live, words } = this.#state;
    const input = this.#input;
    input.max = String(last);
    input.disabled = last === 0;
    if (input.valueAsNumber !== at) {
      input.value = String(at);
    }
    input.setAttribute("aria-valuetext", words);
    input.style.setProperty("--fill", `${last === 0 ? 100 : (100 * at) / last}%`);
    setText(this.#words, words);
    this.#back.setAttribute("aria-disabled", String(at === 0));
    this.#on.setAttribute("aria-disabled", String(at === last));
    this.#now.classList.toggle("resting", live);
    this.#now.tabIndex = live ? -1 : 0;
    this.toggleAttribute("data-past", !live);
  }
}
