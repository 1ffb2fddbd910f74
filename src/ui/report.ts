/**
 * The report of a benchmark on the public page, as JSON for programs and Markdown for people: device, peak, every reading
 * and its share of the peak. Pure; it is filled in event by event.
 */
import type { CourseEvent, GpuFacts } from "../engines/course.ts";
import type { Reading } from "../engines/ladder.ts";
import type { Peak } from "../gpu/peak.ts";

export interface Report {
  readonly format: "heddle-bench-1";
  readonly heddle: string;
  /** ISO 8601, when it began. */
  readonly time: string;
  readonly browser: string;
  readonly gpu: GpuFacts | null;
  /** What the person says of the device; browsers hide it. */
  readonly gpuName: string;
  readonly nominalGflops: number | null;
  readonly wasm: string;
  readonly peak: Peak | null;
  readonly readings: readonly Reading[];
  readonly faults: readonly string[];
  readonly complete: boolean;
}

export function emptyReport(about: Pick<Report, "heddle" | "time" | "browser">): Report {
  return {
    format: "heddle-bench-1",
    ...about,
    gpu: null,
    gpuName: "",
    nominalGflops: null,
    wasm: "",
    peak: null,
    readings: [],
    faults: [],
    complete: false,
  };
}

/** `report` with what `event` tells. */
export function extend(report: Report, event: CourseEvent): Report {
  switch (event.type) {
    case "gpu":
      return { ...report, gpu: event.gpu };
    case "wasm":
      return { ...report, wasm: event.device };
    case "peak":
      return { ...report, peak: event.peak };
    case "reading":
      return { ...report, readings: [...report.readings, event.reading] };
    case "fault":
      return { ...report, faults: [...report.faults, event.sentence] };
    case "end":
      return { ...report, complete: !event.stopped };
    case "progress":
      return report;
    default:
      return event satisfies never;
  }
}

/** A reading counts in tokens per second, not in GFLOP/s. */
export function isStep({ work }: Reading): boolean {
  return work === "training step";
}

/** Share of the peak that was reached in the bare loop; null for what is not a GPU kernel's GFLOP/s. */
export function shareOf(reading: Reading, { peak }: Report): number | null {
  const comparable = reading.type === "measured" && peak !== null && reading.rung !== "wasm" && !isStep(reading);
  return comparable ? reading.rate / peak.unrolledGflops : null;
}

/** "12.3": three significant digits. */
export function figure(value: number): string {
  return value >= 1000 ? Math.round(value).toString() : Number(value.toPrecision(3)).toString();
}

/** The features that matter for training, of the many that a browser lists. */
export function featureWords({ features }: GpuFacts): string {
  const chosen = features.filter((name) => /subgroup|f16|matrix|packed/.test(name));
  return chosen.length === 0 ? "none that matter here" : chosen.join(", ");
}

export function toMarkdown(report: Report): string {
  const { gpu, peak, nominalGflops } = report;
  const name = [report.gpuName, gpu?.description ?? "no WebGPU"].filter((text) => text !== "").join(", ");
  const lines = [
    `### Heddle ${report.heddle} on ${name}`,
    "",
    `- ${report.time}; ${report.browser}`,
    ...(gpu === null ? [] : [`- features: ${featureWords(gpu)}`]),
    ...(peak === null
      ? []
      : [
          `- multiply-add loop: ${figure(peak.unrolledGflops)} GFLOP/s unrolled (the peak below), ${figure(peak.loopGflops)} as written`,
        ]),
    ...(nominalGflops === null
      ? []
      : [`- nominal peak, as the visitor says: ${figure(nominalGflops)} GFLOP/s${reached(report)}`]),
    `- ${report.wasm === "" ? "no WASM engine" : report.wasm}${report.complete ? "" : "; stopped before the end"}`,
    ...report.faults.map((fault) => `- fault: ${fault}`),
    "",
    "| work | rung | rate | spread | of peak |",
    "|---|---|---|---|---|",
    ...report.readings.map((reading) => row(reading, report)),
  ];
  return `${lines.join("\n")}\n`;
}

function reached({ peak, nominalGflops }: Report): string {
  return peak === null || nominalGflops === null
    ? ""
    : ` (the loop reaches ${percent(peak.unrolledGflops / nominalGflops)})`;
}

function row(reading: Reading, report: Report): string {
  const about = `| ${reading.work} | ${reading.rung}`;
  if (reading.type !== "measured") {
    const word = reading.type === "wrong" ? "**WRONG**" : reading.type;
    return `${about} | ${word}: ${reading.detail} | | |`;
  }
  const share = shareOf(reading, report);
  const unit = isStep(reading) ? "tokens/s" : "GFLOP/s";
  return `${about} | ${figure(reading.rate)} ${unit} | ±${percent(reading.spread)} | ${share === null ? "" : percent(share)} |`;
}

function percent(share: number): string {
  return `${figure(100 * share)} %`;
}
