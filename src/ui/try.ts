/**
 * heddle-try: a prompt box whose continuation streams in from the current shared base, computed in this browser. Emits
 * "heddle-generate" with {prompt, temperature, count} and "heddle-abort"; the page feeds text back through `write` and
 * says when it is `busy` or why it is `blocked`. What is typed here is never sent anywhere, and the element says so.
 */
import { make, setText } from "./dom.ts";
import { formatCount } from "./format.ts";

export interface GenerateRequest {
  readonly prompt: string;
  /** 0 is the likeliest token every time. */
  readonly temperature: number;
  /** Tokens to add. */
  readonly count: number;
}

const PROMPT_CHARS_MAX = 400;
const COUNT = 240;

export class TryElement extends HTMLElement {
  #prompt = make(
    "textarea",
    { id: "try-prompt", rows: 2, maxlength: PROMPT_CHARS_MAX, spellcheck: "false" },
    "Call me ",
  );
  #temperature = make("input", { type: "range", id: "try-temperature", min: 0, max: 1.5, step: 0.1, value: 0.8 });
  #value = make("output", { for: "try-temperature" });
  #button = make("button", { type: "submit", class: "button" }, "Continue the text");
  #sentence = make("p", { class: "try-sentence", role: "status" });
  #echo = make("span", { class: "try-echo" });
  #text = make("span", { class: "try-text" });
  #output = make(
    "p",
    { class: "try-output", role: "region", hidden: true, tabindex: 0, "aria-label": "Generated text" },
    this.#echo,
    this.#text,
  );
  #busy = false;
  #blocked: string | null = null;

  connectedCallback(): void {
    const form = make(
      "form",
      { class: "try-form" },
      make("label", { for: "try-prompt" }, "Beginning of a text"),
      this.#prompt,
      make(
        "div",
        { class: "try-row" },
        make("label", { for: "try-temperature" }, "Temperature"),
        this.#temperature,
        this.#value,
        this.#button,
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#temperature.addEventListener("input", () => this.#draw());
    this.replaceChildren(form, this.#sentence, this.#output);
    this.#draw();
  }

  /** A sentence that says why nothing can be generated now, or null. */
  set blocked(reason: string | null) {
    if (reason === null && this.#blocked !== null) {
      this.sentence = "";
    }
    this.#blocked = reason;
    this.#draw();
  }

  set busy(busy: boolean) {
    this.#busy = busy;
    this.#draw();
  }

  /** What is happening or what went wrong; empty when there is nothing to say. */
  set sentence(text: string) {
    setText(this.#sentence, text);
  }

  /** Adds generated text. */
  write(text: string): void {
    this.#text.append(text);
  }

  #submit(): void {
    if (this.#busy) {
      this.dispatchEvent(new CustomEvent("heddle-abort", { bubbles: true }));
      return;
    }
    if (this.#blocked !== null) {
      this.sentence = this.#blocked;
      return;
    }
    const prompt = this.#prompt.value;
    this.#echo.textContent = prompt;
    this.#text.replaceChildren();
    this.#output.hidden = false;
    const detail: GenerateRequest = { prompt, temperature: Number(this.#temperature.value), count: COUNT };
    this.dispatchEvent(new CustomEvent("heddle-generate", { detail, bubbles: true }));
  }

  #draw(): void {
    const temperature = Number(this.#temperature.value);
    const words =
      temperature === 0
        ? "always the likeliest"
        : temperature < 0.6
          ? "careful"
          : temperature < 1.1
            ? "lively"
            : "wild";
    setText(this.#value, `${formatCount(temperature)}, ${words}`);
    this.#temperature.setAttribute("aria-valuetext", `${temperature.toFixed(1)}, ${words}`);
    this.#temperature.style.setProperty("--fill", `${(temperature / 1.5) * 100}%`);
    setText(this.#button, this.#busy ? "Stop writing" : "Continue the text");
    // Disabled buttons cannot be focused and explain nothing: this one stays reachable and says why it does nothing.
    this.#button.setAttribute("aria-disabled", String(this.#blocked !== null && !this.#busy));
    this.#output.setAttribute("aria-busy", String(this.#busy));
    if (this.#blocked !== null && !this.#busy) {
      this.sentence = this.#blocked;
    }
  }
}
