/**
 * heddle-power: the share of the time that the device works, 5 … 100 %, as a native range input (arrow keys, Page Up and
 * Down, Home and End work) with its value always visible, and two buttons for those who cannot drag. Emits "heddle-duty"
 * with a number 0.05 … 1 as its detail.
 */
import { make, setText } from "./dom.ts";

const DUTY_MIN = 0.05;
const STEP_PERCENT = 5;

export class PowerElement extends HTMLElement {
  #duty = 0.5;
  #worker: "GPU" | "processor" | "device" = "device";
  #input = make("input", { type: "range", id: "power-input", min: 5, max: 100, step: STEP_PERCENT });
  #value = make("output", { for: "power-input", class: "power-value" });
  #hint = make("p", { class: "power-hint", id: "power-hint" });

  connectedCallback(): void {
    const less = make("button", { type: "button", class: "button step", "aria-label": "Less power" }, "−");
    const more = make("button", { type: "button", class: "button step", "aria-label": "More power" }, "+");
    less.addEventListener("click", () => this.#change(this.#duty - STEP_PERCENT / 100));
    more.addEventListener("click", () => this.#change(this.#duty + STEP_PERCENT / 100));
    this.#input.addEventListener("input", () => this.#change(Number(this.#input.value) / 100));
    this.#input.setAttribute("aria-describedby", "power-hint");
    const head = make("div", { class: "power-head" }, make("label", { for: "power-input" }, "Power"), this.#value);
    this.replaceChildren(head, make("div", { class: "power-row" }, less, this.#input, more), this.#hint);
    this.#draw();
  }

  get duty(): number {
    return this.#duty;
  }

  set duty(duty: number) {
    this.#duty = clampDuty(duty);
    this.#draw();
  }

  /** Which part works: decides the words beside the slider. */
  set worker(worker: "GPU" | "processor" | "device") {
    this.#worker = worker;
    this.#draw();
  }

  #change(duty: number): void {
    const next = clampDuty(duty);
    if (next !== this.#duty) {
      this.duty = next;
      this.dispatchEvent(new CustomEvent("heddle-duty", { detail: next, bubbles: true }));
    }
  }

  #draw(): void {
    const percent = Math.round(this.#duty * 100);
    this.#input.value = String(percent);
    this.#input.setAttribute("aria-valuetext", `${percent} percent`);
    this.#input.style.setProperty("--fill", `${((percent - 5) / 95) * 100}%`);
    setText(this.#value, `${percent} %`);
    setText(this.#hint, powerSentence(this.#worker, percent));
  }
}

/** Whole steps of 5 %, 5 … 100 %, as a share. Not-a-number becomes the least. */
export function clampDuty(duty: number): number {
  const percent = Number.isFinite(duty) ? Math.round((duty * 100) / STEP_PERCENT) * STEP_PERCENT : 0;
  return Math.min(1, Math.max(DUTY_MIN, percent / 100));
}

function powerSentence(worker: string, percent: number): string {
  if (percent === 100) {
    return `The ${worker} works all the time. Other programs may feel slower.`;
  }
  return `The ${worker} works ${percent} % of the time, in short slices with rests between.`;
}
