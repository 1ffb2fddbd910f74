/**
 * Entry point of the benchmark page (`bench.html`): starts and stops the course in a worker, draws its events, and gives the
 * report away. Nothing is measured before the button is pressed, and nothing leaves the page.
 */
import type { CourseEvent, GpuFacts, Length } from "../engines/course.ts";
import { openBench, type BenchLink } from "../ui/bench-link.ts";
import { byId, make, setText } from "../ui/dom.ts";
import { formatBytes } from "../ui/format.ts";
import { onPress } from "../ui/press.ts";
import { emptyReport, extend, featureWords, figure, toMarkdown, type Report } from "../ui/report.ts";
import { RungsElement } from "../ui/rungs.ts";

const VERSION = "0.1.0";

customElements.define("heddle-rungs", RungsElement);
const rungs = document.querySelector("heddle-rungs") as RungsElement;
const [start, stop] = [byId<HTMLButtonElement>("start"), byId<HTMLButtonElement>("stop")];
const [gpuName, nominal] = [byId<HTMLInputElement>("gpu-name"), byId<HTMLInputElement>("nominal")];
const progress = byId<HTMLProgressElement>("progress");
const length = byId<HTMLSelectElement>("length");
let report = fresh();
let link: BenchLink | null = null;

const wanted = new URLSearchParams(location.search).get("length") ?? "";
length.value = lengthOf(wanted);
onPress(start, () => {
  report = fresh();
  show("busy", "Looking for a GPU …");
  link = openBench(lengthOf(length.value), take);
  draw();
  stop.focus();
});
onPress(stop, () => {
  link?.stop();
  setText(byId("state"), "Stopping …");
});
gpuName.addEventListener("input", draw);
nominal.addEventListener("input", draw);
byId("copy-markdown").addEventListener("click", () => void copy(toMarkdown(named())));
byId("copy-json").addEventListener("click", () => void copy(JSON.stringify(named(), null, 2)));
draw();

function lengthOf(text: string): Length {
  return text === "quick" || text === "smallest" ? text : "full";
}

function fresh(): Report {
  return emptyReport({ heddle: VERSION, time: new Date().toISOString(), browser: navigator.userAgent });
}

/** The report with what the person has typed. */
function named(): Report {
  const tera = nominal.valueAsNumber;
  return { ...report, gpuName: gpuName.value.trim(), nominalGflops: tera > 0 && tera <= 1_000 ? tera * 1_000 : null };
}

function take(event: CourseEvent): void {
  report = extend(report, event);
  switch (event.type) {
    case "progress":
      show("working", `${event.sentence} …`);
      progress.value = event.done / event.total;
      break;
    case "gpu":
      if (event.sentence !== "") {
        setText(byId("device-lead"), event.sentence);
      }
      break;
    case "end":
      link = null;
      progress.value = event.stopped ? 0 : 1;
      show("ready", endSentence(event.stopped));
      start.focus();
      break;
    case "wasm":
    case "peak":
    case "reading":
    case "fault":
      break;
    default:
      event satisfies never;
  }
  draw();
}

function endSentence(stopped: boolean): string {
  const wrong = report.readings.filter(({ type }) => type === "wrong").length;
  if (wrong > 0) {
    return `Measured. ${wrong} ${wrong === 1 ? "kernel gives" : "kernels give"} wrong results on this device.`;
  }
  return stopped ? "Stopped. What was measured is below." : "Measured. Every result that was timed was right.";
}

function show(mood: "ready" | "busy" | "working", sentence: string): void {
  byId("panel").dataset["mood"] = mood;
  setText(byId("state"), sentence);
}

function draw(): void {
  const now = named();
  const running = link !== null;
  start.hidden = running;
  stop.hidden = !running;
  length.disabled = running;
  setText(start, now.readings.length === 0 ? "Measure" : "Measure again");
  progress.classList.toggle("resting", !running);
  byId("nothing").hidden = now.readings.length > 0;
  rungs.report = now;
  byId("facts").replaceChildren(
    ...facts(now).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
  setText(byId("report-text"), toMarkdown(now));
}

function facts(now: Report): [name: string, value: string][] {
  const { gpu, peak, wasm, nominalGflops, faults } = now;
  const loop = peak === null ? [] : [["Multiply-add loop", peakWords(peak.unrolledGflops, peak.loopGflops)] as const];
  const share = peak === null || nominalGflops === null ? null : peak.unrolledGflops / nominalGflops;
  return [
    ["GPU", gpu?.description ?? (wasm === "" ? "Shown when measuring begins." : "No WebGPU here.")],
    ...(gpu === null ? [] : gpuFacts(gpu)),
    ...loop.map(([name, value]): [string, string] => [name, value]),
    ...(share === null ? [] : [["Of the nominal peak", `${figure(100 * share)} %`] as [string, string]]),
    ...(wasm === "" ? [] : [["Processor", wasm] as [string, string]]),
    ...faults.map((fault): [string, string] => ["Fault", fault]),
  ];
}

function gpuFacts(gpu: GpuFacts): [string, string][] {
  const { limits } = gpu;
  return [
    ["Features", featureWords(gpu)],
    ["Largest binding", formatBytes(limits["maxStorageBufferBindingSize"] ?? 0)],
    ["Workgroup memory", `${(limits["maxComputeWorkgroupStorageSize"] ?? 0) / 1024} KiB`],
  ];
}

function peakWords(unrolled: number, loop: number): string {
  return `${figure(unrolled)} GFLOP/s (the peak below); ${figure(loop)} when the compiler has to unroll it`;
}

async function copy(text: string): Promise<void> {
  const done = await navigator.clipboard.writeText(text).then(
    () => "Copied.",
    () => "The browser does not allow copying; select the text below.",
  );
  setText(byId("copied"), done);
}
