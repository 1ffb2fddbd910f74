/**
 * heddle-rungs: the readings of a benchmark as bars, one group for each work and one bar for each rung, the fastest marked.
 * A rung that was wrong, failed or was skipped has a sentence in place of its bar. Colour is never the only sign.
 */
import type { Reading } from "../engines/ladder.ts";
import { make } from "./dom.ts";
import { figure, isStep, shareOf, type Report } from "./report.ts";

/** Rungs that are no kernels of the GPU, by how they are called here. */
const NAMES: Readonly<Record<string, string>> = { wasm: "WASM", webgpu: "WebGPU" };

export class RungsElement extends HTMLElement {
  #shown = "";

  /** Shows what `report` holds; the same readings again change nothing. */
  set report(report: Report) {
    const shown = JSON.stringify([report.readings, report.peak]);
    if (shown === this.#shown) {
      return;
    }
    this.#shown = shown;
    const works = [...new Set(report.readings.map(({ work }) => work))];
    this.replaceChildren(
      ...works.map((work) =>
        group(
          work,
          report.readings.filter((reading) => reading.work === work),
          report,
        ),
      ),
    );
  }
}

function group(work: string, readings: readonly Reading[], report: Report): HTMLElement {
  const best = Math.max(0, ...readings.map((reading) => (reading.type === "measured" ? reading.rate : 0)));
  const rows = readings.map((reading) => row(reading, best, report));
  return make("div", { class: "rungs-group" }, make("h3", {}, work), make("ul", { class: "rungs" }, ...rows));
}

function row(reading: Reading, best: number, report: Report): HTMLElement {
  const name = make("span", { class: "rung-name" }, NAMES[reading.rung] ?? reading.rung);
  if (reading.type !== "measured") {
    const word = reading.type === "wrong" ? "WRONG" : reading.type === "failed" ? "Failed" : "Skipped";
    const detail = make("span", { class: "rung-detail" }, make("strong", {}, word), `: ${reading.detail}`);
    return make("li", { "data-type": reading.type }, name, detail);
  }
  const fastest = reading.rate === best;
  const bar = make("span", { class: "rung-bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", `${((100 * reading.rate) / best).toFixed(1)}%`);
  const share = shareOf(reading, report);
  const unit = isStep(reading) ? "tokens/s" : "GFLOP/s";
  const words = [
    `${figure(reading.rate)} ${unit}`,
    ...(share === null ? [] : [`${figure(100 * share)} % of peak`]),
    `±${figure(100 * reading.spread)} %`,
    ...(fastest ? ["fastest"] : []),
  ];
  const attributes = { "data-type": "measured", "data-fastest": fastest, "data-engine": reading.rung };
  return make("li", attributes, name, bar, make("span", { class: "rung-figure" }, words.join(" · ")));
}
