/**
 * One launch of a comparison, inside its host (a browser's worker or a Node process): opens the contenders, and for every
 * work prepares them all, checks their outputs, and then times those that were right, interleaved. The outcome is plain
 * data. A contender that is wrong, or fails, is named with what it did and never timed.
 */
import { messageIn, present } from "../../src/base/assert.ts";
import { probeGpu } from "../../src/gpu/engine.ts";
import { measurePeak, type Peak } from "../../src/gpu/peak.ts";
import { openBareLoop, type BareLoop } from "./bare.ts";
import type { Backend, Contender, OpenContenders, Ready, Surroundings } from "./contender.ts";
import { OURS, openOurs } from "./ours.ts";
import { takeRounds, type Runner } from "./statistics.ts";
import { watchWebGpu, type Counts, type Watch } from "./watch.ts";
import { faultOf, type Work } from "./works.ts";

/** What a launch is asked to do; it passes through JSON. */
export interface Order {
  readonly backend: Backend;
  readonly works: readonly Work[];
  readonly rounds: number;
  /** Peers' bundles by name, as URLs that the host can import. */
  readonly peers: Readonly<Record<string, string>>;
  /** Where the peers' files are, as a URL that ends in a slash. */
  readonly filesUrl: string;
  /** What `compileBareLoop` made, for products on WASM to be set beside it. */
  readonly bareLoop: readonly number[];
}

export interface Launch {
  /** The device in words. */
  readonly adapter: string;
  /** GFLOP/s of a loop of multiplications and additions on the GPU: as written, and unrolled. */
  readonly peak?: Peak;
  readonly results: readonly Result[];
}

/** What one contender did with one work. */
export interface Result {
  readonly work: string;
  readonly contender: string;
  /** Milliseconds of one run, one entry a round; empty when it was not timed. */
  readonly ms: readonly number[];
  /** Why it was not timed. */
  readonly fault?: string;
  /** GFLOP/s of the bare multiply-add loop on every thread in the same rounds, beside our own products on WASM. */
  readonly loopGflops?: readonly number[];
  /** What one training step in the steady state asks of WebGPU. */
  readonly counts?: Counts;
}

/** What a host brings. */
export interface Host {
  /** The host shares its cores with a software adapter and may put its thread to sleep. */
  readonly maySleep: boolean;
}

/** A sample shorter than this is made of several runs. */
const SAMPLE_MS = 60;
const RUNS_MAX = 16;
/** A wait is begun when this share of the expected time is over. */
const SLEEP_SHARE = 0.85;
const LOOP = "bare loop";

export async function hold(order: Order, { maySleep }: Host): Promise<Launch> {
  const { backend, works, rounds, peers, filesUrl, bareLoop } = order;
  const watch = backend.type === "webgpu" ? watchWebGpu({ maySleep }) : undefined;
  const surroundings = surround(backend, filesUrl, watch);
  const contenders: Contender[] = openOurs(surroundings);
  const results: Result[] = [];
  for (const [name, url] of Object.entries(peers)) {
    try {
      const { open } = (await import(/* @vite-ignore */ url)) as { readonly open: OpenContenders };
      contenders.push(...(await open(surroundings)));
    } catch (error) {
      results.push(...works.map((work) => ({ work: work.name, contender: name, ms: [], fault: messageIn(error) })));
    }
  }
  const loop = backend.type === "wasm" ? await openBareLoop(bareLoop, backend.threads) : undefined;
  for (const work of works) {
    results.push(
      ...(await compare(work, contenders, { rounds, watch, loop: work.type === "matmul" ? loop : undefined })),
    );
  }
  if (backend.type === "wasm") {
    return { adapter: "processor", results };
  }
  const adapter = (await probeGpu(navigator.gpu))?.identity.trim() ?? "";
  const products = works.some(({ type }) => type === "matmul");
  return products ? { adapter, peak: await measurePeak(navigator.gpu), results } : { adapter, results };
}

function surround(backend: Backend, filesUrl: string, watch: Watch | undefined): Surroundings {
  const need = (): Watch => {
    if (watch === undefined) {
      throw new Error("There is no WebGPU in this launch");
    }
    return watch;
  };
  return {
    backend,
    fileUrl: (path) => filesUrl + path,
    syncWith: (device) => need().sync(device),
    lastDevice: () => need().lastDevice(),
  };
}

interface Circumstances {
  readonly rounds: number;
  readonly watch: Watch | undefined;
  /** Takes turns with the contenders. */
  readonly loop: BareLoop | undefined;
}

async function compare(
  work: Work,
  contenders: readonly Contender[],
  { rounds, watch, loop }: Circumstances,
): Promise<Result[]> {
  using stack = new DisposableStack();
  const results: Result[] = [];
  const runners: (Runner & { readonly times: number; readonly ready: Ready })[] = [];
  for (const { name, prepare } of contenders) {
    try {
      const ready = await prepare(work);
      if (ready === undefined) {
        continue;
      }
      stack.use(ready);
      const fault = await check(work, ready);
      if (fault !== undefined) {
        results.push({ work: work.name, contender: name, ms: [], fault: `WRONG: ${fault}` });
        continue;
      }
      const begin = performance.now();
      await ready.run(1);
      const times = Math.min(RUNS_MAX, Math.max(1, Math.ceil(SAMPLE_MS / (performance.now() - begin))));
      const run = (expectedMs: number): Promise<void> => {
        // The first wait of a sample may come after its first run: a longer sleep would leave the device idle.
        watch?.sleepBeforeWait((SLEEP_SHARE * expectedMs) / times);
        return ready.run(times);
      };
      runners.push({ name, times, ready, run });
    } catch (error) {
      results.push({ work: work.name, contender: name, ms: [], fault: messageIn(error) });
    }
  }
  const loops: Runner[] = loop === undefined ? [] : [{ name: LOOP, run: async () => loop.run() }];
  const samples = await takeRounds([...runners, ...loops], { rounds, nowMs: () => performance.now() });
  const loopGflops = samples.get(LOOP)?.map((ms) => present(loop, LOOP).gflopsOf(ms));
  for (const { name, times, ready } of runners) {
    const result = { work: work.name, contender: name, ms: (samples.get(name) ?? []).map((ms) => ms / times) };
    results.push({
      ...result,
      ...(name === OURS && loopGflops ? { loopGflops } : {}),
      ...(watch && work.type === "step" ? { counts: await watch.count(() => ready.run(1)) } : {}),
    });
  }
  return results;
}

async function check(work: Work, ready: Ready): Promise<string | undefined> {
  await ready.run(1);
  return faultOf(work, await ready.outputs());
}
