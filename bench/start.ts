/**
 * How long a visitor waits: `npm run bench start` opens a relay's own page in headless Chromium, presses the button, agrees, and
 * prints when the page was ready and, from the click on, when its worker had an engine to begin with, the compiled training
 * Program, and the loss of the first step, with the engine that made it. A page that is to have a GPU begins on WASM: the
 * self-test's verdict, the Program compiled for the GPU and the first step on it follow, that one in the first round
 * that begins when all is ready. The times are marks that the page's worker leaves in the browser's own timeline
 * (`src/engines/open.ts`, `worker/train.ts`), so what is measured is the product. The slider stands at 100 %.
 *
 * A cold visit has a profile of its own that nothing is in; the warm one follows in another process of the browser with what
 * the first left there: cached files, Chromium's compiled shaders, our tuning, key and agreement. Options: --json, one line
 * for each kind of visit instead of a table; --launches N (3), whose medians are printed; --engine webgpu,wasm (WebGPU on
 * SwiftShader, because "auto" never takes a software adapter); --model sample,step (the run of `npm start`; `src/engines/task.ts`).
 */
import { rmSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { chromium, type Page } from "playwright-core";
import { HeddleError } from "../src/base/assert.ts";
import { median } from "../src/base/statistics.ts";
import { STEP_INNER, STEP_MODEL } from "../src/engines/task.ts";
import { beginContributing } from "../src/headless/chromium.ts";
import { QUIET, SOFTWARE_GPU } from "../test/e2e/browser.ts";
import { startRelay, temporaryFolder } from "../test/e2e/processes.ts";
import { readWhole } from "./load/options.ts";

const VISIT_MS_MAX = 120_000;
/** As long as a round of the sample run, however fast the engine: a page goes over to its GPU between two of them. */
const round = { stepsMax: 100_000 };
const CHARTERS: Readonly<Record<string, object>> = {
  sample: { round },
  step: { round, model: STEP_MODEL, inner: STEP_INNER },
};
const ENGINES = ["webgpu", "wasm"];
const VISITS = ["cold", "warm"] as const;
type Visit = (typeof VISITS)[number];
/** The marks, in the order of a start. */
const MARKS = ["start", "engine", "compiled", "step", "self-test", "gpu compiled", "gpu step"];

/**
 * Milliseconds: "page" since the navigation began, "total" to it and the first step, "gpu total" to it and the first step on
 * the GPU, the others since the click.
 */
type Times = Readonly<Record<string, number>>;
const COLUMNS = ["page", ...MARKS, "total", "gpu total"];

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    launches: { type: "string", default: "3" },
    engine: { type: "string", default: ENGINES.join() },
    model: { type: "string", default: "sample,step" },
  },
});
const launches = readWhole("--launches", values.launches);
const [engines, models] = [values.engine.split(","), values.model.split(",")];
if (!engines.every((name) => ENGINES.includes(name)) || !models.every((name) => name in CHARTERS)) {
  const known = `the engines are ${ENGINES.join()}, the models ${Object.keys(CHARTERS).join()}`;
  throw new HeddleError("bad-input", `Cannot measure: ${known}`);
}
if (!values.json) {
  print(["model", "engine", "visit", "first on", ...COLUMNS]);
}
for (const model of models) {
  const times = await measureModel(model);
  for (const [kind, visits] of times) {
    const names = COLUMNS.filter((name) => visits[0]?.[name] !== undefined);
    const medians = Object.fromEntries(names.map((name) => [name, median(visits.map((one) => one[name] as number))]));
    if (values.json) {
      const [engine, visit, firstOn] = kind.split(" ");
      const totals = visits.map(({ total }) => Math.round(total as number));
      const line = { work: "start", model, engine, visit, firstOn, ...rounded(medians), totals };
      process.stdout.write(`${JSON.stringify(line)}\n`);
    } else {
      const cells = COLUMNS.map((name) => medians[name]);
      print([model, ...kind.split(" "), ...cells.map((ms) => (ms === undefined ? "" : ms.toFixed(0)))]);
    }
  }
}
process.exit(0);

/** Visits of a relay that runs `model`, by "ENGINE VISIT FIRST", the last being what made the first step; engines take turns. */
async function measureModel(model: string): Promise<Map<string, Times[]>> {
  const folder = temporaryFolder();
  const charter = CHARTERS[model] as object;
  const relay = await startRelay({ dir: folder.path, charter, args: ["--no-contributor"] });
  const times = new Map<string, Times[]>();
  try {
    for (let launch = 0; launch < launches; launch += 1) {
      for (const engine of engines) {
        using profile = temporaryFolder();
        for (const visit of VISITS) {
          const { firstOn, times: taken } = await visitPage({
            visit,
            profile: profile.path,
            origin: relay.origin,
            engine,
          });
          const kind = `${engine} ${visit} ${firstOn}`;
          times.set(kind, [...(times.get(kind) ?? []), taken]);
        }
      }
    }
  } finally {
    await relay.stop("SIGINT");
    rmSync(folder.path, { recursive: true, force: true });
  }
  return times;
}

interface VisitOptions {
  readonly visit: Visit;
  /** A folder for what the browser keeps. */
  readonly profile: string;
  readonly origin: string;
  readonly engine: string;
}

interface Visited {
  /** The engine that made the first step. */
  readonly firstOn: string;
  readonly times: Times;
}

/** One visit in a browser process of its own. */
async function visitPage({ visit, profile, origin, engine }: VisitOptions): Promise<Visited> {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium",
    args: [...QUIET, ...SOFTWARE_GPU],
  });
  try {
    await context.addInitScript(prepare);
    const page = context.pages()[0] ?? (await context.newPage());
    await page.goto(`${origin}/?engine=${engine}`);
    const opened = await page.waitForFunction(mainButton, undefined, { polling: "raf", timeout: VISIT_MS_MAX });
    const readyMs = (await opened.jsonValue()) as number;
    // Who has agreed before is not asked again.
    await (visit === "cold" ? beginContributing(page) : page.locator("#main").click());
    const marks = await marksOf(page, `step ${engine}`);
    const clickMs = await page.evaluate(() => performance.timeOrigin + (globalThis as unknown as Kept).clickMs);
    const firstOn = [...marks.keys()].find((name) => name.startsWith("step "))?.slice(5) ?? "";
    const sinceClick = (name: string): number => (marks.get(name) ?? Number.NaN) - clickMs;
    const times = {
      page: readyMs,
      start: sinceClick("start"),
      engine: sinceClick("engine"),
      compiled: sinceClick(`compiled ${firstOn}`),
      step: sinceClick(`step ${firstOn}`),
      total: readyMs + sinceClick(`step ${firstOn}`),
    };
    const gpuTimes = {
      "self-test": sinceClick("self-test"),
      "gpu compiled": sinceClick("compiled webgpu"),
      "gpu step": sinceClick("step webgpu"),
      "gpu total": readyMs + sinceClick("step webgpu"),
    };
    return { firstOn, times: engine === "webgpu" ? { ...times, ...gpuTimes } : times };
  } finally {
    await context.close();
  }
}

interface Kept {
  clickMs: number;
}

/** Runs in the page before anything else: full power, and the time of the last click is kept. */
function prepare(): void {
  localStorage.setItem("heddle.duty", "1");
  addEventListener("click", () => ((globalThis as unknown as Kept).clickMs = performance.now()), true);
}

/** Runs in the page: how long it took until its main button can be pressed; undefined before. */
function mainButton(): number | undefined {
  return document.querySelector("#main")?.textContent === "Contribute" ? performance.now() : undefined;
}

/** When each mark was set, in ms since 1970; waits for the mark `last`. Rejects when it never comes. */
async function marksOf(page: Page, last: string): Promise<Map<string, number>> {
  const [worker = await page.waitForEvent("worker", { timeout: VISIT_MS_MAX })] = page.workers();
  const marked = worker.evaluate(
    (awaited) =>
      new Promise<[string, number][]>((resolve) => {
        const watch = (): void => {
          const marks = performance.getEntriesByType("mark");
          if (marks.some(({ name }) => name === `heddle ${awaited}`)) {
            resolve(marks.map(({ name, startTime }) => [name, performance.timeOrigin + startTime]));
          }
        };
        new PerformanceObserver(watch).observe({ entryTypes: ["mark"] });
        watch();
      }),
    last,
  );
  const marks = await Promise.race([marked, page.waitForTimeout(VISIT_MS_MAX).catch(() => undefined)]);
  if (marks === undefined) {
    throw new Error(`Cannot measure: no ${last}; the page says "${await page.locator("#state").innerText()}"`);
  }
  return new Map(marks.map(([name, ms]) => [name.replace("heddle ", ""), ms]));
}

function rounded(times: Times): Times {
  return Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, Math.round(ms)]));
}

function print(cells: readonly string[]): void {
  process.stdout.write(
    `${cells
      .map((cell) => cell.padEnd(13))
      .join("")
      .trimEnd()}\n`,
  );
}
