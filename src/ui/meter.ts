/**
 * heddle-meter: how fast this device works, as one number and a short trace of the last minute. It is always on screen
 * while anything computes. Not a live region: a number that changes every second would drown a screen reader; that
 * the device begins, pauses or ends is announced instead.
 */
import { make, makeSvg, setText } from "./dom.ts";
import { formatCount } from "./format.ts";

/** Readings kept for the trace, one a second. */
const READINGS_MAX = 60;
const TRACE_WIDTH = 240;
const TRACE_HEIGHT = 44;

export interface MeterReading {
  /** Over the last few steps, pauses included. */
  readonly tokensPerS: number;
  /** Something computes now. */
  readonly working: boolean;
}

export class MeterElement extends HTMLElement {
  #reading: MeterReading = { tokensPerS: 0, working: false };
  #trace: number[] = [];
  #lastMs = 0;
  #lang = "en";
  #number = make("span", { class: "meter-number" }, "0");
  #line = makeSvg("path", { class: "meter-line", fill: "none", "vector-effect": "non-scaling-stroke" });

  connectedCallback(): void {
    if (this.firstChild !== null) {
      return;
    }
    this.append(
      make(
        "p",
        { class: "meter-value" },
        this.#number,
        " ",
        make("span", { class: "meter-unit" }, "tokens per second"),
      ),
      makeSvg(
        "svg",
        {
          class: "meter-trace",
          viewBox: `0 0 ${TRACE_WIDTH} ${TRACE_HEIGHT}`,
          preserveAspectRatio: "none",
          "aria-hidden": "true",
        },
        this.#line,
      ),
    );
    this.#draw();
  }

  /** The language tag by which numbers are written. */
  set numbersIn(lang: string) {
    this.#lang = lang;
    this.#draw();
  }

  get reading(): MeterReading {
    return this.#reading;
  }

  set reading(reading: MeterReading) {
    this.#reading = reading;
    const nowMs = performance.now();
    if (nowMs - this.#lastMs > 900) {
      this.#lastMs = nowMs;
      this.#trace = [...this.#trace, reading.working ? reading.tokensPerS : 0].slice(-READINGS_MAX);
    }
    this.#draw();
  }

  #draw(): void {
    this.toggleAttribute("data-working", this.#reading.working);
    setText(this.#number, this.#reading.working ? formatCount(this.#reading.tokensPerS, this.#lang) : "0");
    this.#line.setAttribute("d", tracePath(this.#trace));
  }
}

/** The trace as an SVG path that ends at the right edge; the highest reading touches the top. */
export function tracePath(readings: readonly number[]): string {
  const top = Math.max(1, ...readings);
  const step = TRACE_WIDTH / (READINGS_MAX - 1);
  const left = TRACE_WIDTH - (readings.length - 1) * step;
  const at = (value: number): string => (TRACE_HEIGHT - 3 - (value / top) * (TRACE_HEIGHT - 6)).toFixed(1);
  if (readings.length < 2) {
    return `M0 ${at(0)}H${TRACE_WIDTH}`;
  }
  return readings.map((value, i) => `${i === 0 ? "M" : "L"}${(left + i * step).toFixed(1)} ${at(value)}`).join("");
}
