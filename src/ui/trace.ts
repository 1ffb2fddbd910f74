/**
 * heddle-trace: one quantity of a run over its rounds, with its value at the round that is looked at. The line is drawn when
 * values are added; moving along it changes one clip and one mark. The numbers are text; the drawing is hidden from
 * assistive technology.
 */
import { make, makeSvg, setText } from "./dom.ts";
import { linePath } from "./scale.ts";

export interface TraceState {
  readonly name: string;
  /** At the round looked at, with its unit. */
  readonly value: string;
  readonly note: string;
  /** One a round; the same array until something is added. */
  readonly values: readonly number[];
  /** Index of the round looked at. */
  readonly at: number;
}

/** The line's own units; it is stretched to its box. */
const WIDTH = 300;
const HEIGHT = 48;

export class TraceElement extends HTMLElement {
  #values: readonly number[] = [];
  #name = make("h3", { class: "trace-name" });
  #value = make("p", { class: "trace-value" });
  #note = make("p", { class: "trace-note" });
  #later = drawing("trace-later");
  #past = drawing("trace-past");
  #mark = make("span", { class: "trace-mark", "aria-hidden": "true" });
  #state: TraceState | null = null;

  connectedCallback(): void {
    if (!this.#name.isConnected) {
      const figure = make("div", { class: "trace-figure" }, this.#later, this.#past, this.#mark);
      this.replaceChildren(this.#name, this.#value, figure, this.#note);
    }
  }

  get state(): TraceState | null {
    return this.#state;
  }

  set state(state: TraceState) {
    this.#state = state;
    setText(this.#name, state.name);
    setText(this.#value, state.value);
    setText(this.#note, state.note);
    if (state.values !== this.#values) {
      this.#values = state.values;
      const path = linePath(state.values, { width: WIDTH, height: HEIGHT });
      for (const svg of [this.#later, this.#past]) {
        svg.firstElementChild?.setAttribute("d", path);
      }
    }
    const percent = state.values.length < 2 ? 100 : (100 * state.at) / (state.values.length - 1);
    this.#past.style.clipPath = `inset(-2px ${100 - percent}% -2px 0)`;
    this.#mark.style.left = `${percent}%`;
  }
}

function drawing(name: string): SVGSVGElement {
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  return makeSvg("svg", { class: name, ...box }, makeSvg("path", { d: "" }));
}
