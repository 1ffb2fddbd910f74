/**
 * The stacks that a machine without a GPU can offer, and how to get a report from them: WebGPU in Node (Dawn on SwiftShader
 * and on Mesa 25's lavapipe), in Deno (wgpu on llvmpipe), in a worker of Chromium (Dawn on SwiftShader) and in one of Firefox
 * (wgpu on llvmpipe); WASM in all of them, hence in V8 and in SpiderMonkey. Each is one process that is started once.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync } from "node:fs";
import { setPriority, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { REPORT, wordsOf, type EngineName, type Report, type Reports, type Wanted } from "./entry.ts";
import type { TraceName } from "./trace.ts";

const root = resolve(import.meta.dirname, "../..");
const bin = join(root, "node_modules/.bin");
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
const LLVMPIPE = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";
const LAVAPIPE = join(root, "build/lavapipe/lvp_icd.json");
const NODE = ["node", "--experimental-import-text", "--disable-warning=ExperimentalWarning"];
const DENO = ["deno", "run", "--no-check", "-A", "--unstable-webgpu", "--unstable-raw-imports"];

/** What Chromium does not run with every change. */
const LEFT_TO_NODE = [
  "model ",
  "attention.* D (12|20|32|64|128)",
  "matmul( in fours)? (33|36|65|129|132|513)",
  "matmul.* gated",
  "training twice",
  "a run creates",
  "the self-test",
  "what a GPU takes",
  "a search",
  "a model with tables",
  "what would hold",
  "pack .* with [134] bits",
];

interface Host {
  readonly name: string;
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** A file that the host cannot do without, and what to install for it. */
  readonly needs: { readonly file: string; readonly install: string };
  /** What is named after each engine that it runs, as a stack. */
  readonly stacks: Readonly<Partial<Record<EngineName, string>>>;
  /** What of the contract it runs with every change. */
  readonly brief: Part;
  /**
   * What it runs in a sweep: every rung on both implementations of WGSL, and wherever it needs what only this adapter has.
   */
  readonly sweep: Part;
}

/** Rungs besides those that the engine takes by itself, and a choice of cases; see `Wanted` in `entry.ts`. */
type Part = Pick<Wanted, "rungs" | "cases">;

/** An engine in a place. */
export interface Stack {
  readonly name: string;
  readonly engine: EngineName;
  readonly part: Part;
  readonly report: () => Promise<Report>;
}

const hosts: readonly Host[] = [
  {
    name: "Node on SwiftShader",
    command: [...NODE, "test/engines/node.ts"],
    environment: { VK_ICD_FILENAMES: SWIFTSHADER },
    needs: { file: SWIFTSHADER, install: 'the system package "chromium"' },
    stacks: { webgpu: "WebGPU: Node with Dawn on SwiftShader", wasm: "WASM: Node" },
    brief: { rungs: "^(shared|staged muon)" },
    sweep: { rungs: "^(?!f16)" },
  },
  {
    name: "Node on lavapipe",
    command: [...NODE, "test/engines/node.ts"],
    // Its compiler takes seconds for a kernel even so.
    environment: { VK_ICD_FILENAMES: LAVAPIPE, GALLIVM_PERF: "nopt" },
    needs: { file: LAVAPIPE, install: 'Mesa 25 with "node tools/lavapipe.mjs"' },
    stacks: { webgpu: "WebGPU: Node with Dawn on lavapipe" },
    // Subgroups of 8 and f16 are what it is here for.
    brief: { cases: "in fours", rungs: "^f16: " },
    sweep: { rungs: "^f16: |^(f16 )?(subgroup-([0-9]+x|1 att)|lanes)" },
  },
  {
    name: "Deno",
    command: [...DENO, "test/engines/deno.ts"],
    environment: { VK_ICD_FILENAMES: LLVMPIPE },
    needs: { file: LLVMPIPE, install: 'the system package "mesa-vulkan-drivers"' },
    stacks: { webgpu: "WebGPU: Deno with wgpu on llvmpipe", wasm: "WASM: Deno" },
    brief: { rungs: "^(naive|register|tiled-64x128|split|flash-64|shared|staged|f16:)" },
    sweep: { rungs: "^(?!(f16 )?(subgroup|lanes))" },
  },
  {
    name: "Chromium",
    command: [...NODE, "test/engines/browser.ts", "chromium"],
    needs: { file: "/usr/bin/chromium", install: 'the system package "chromium"' },
    stacks: { webgpu: "WebGPU: Chromium worker with Dawn on SwiftShader", wasm: "WASM: Chromium worker" },
    // The same driver as in Node, behind Chromium's own process: every kernel at its small sizes, and the run of training.
    // What compiles longest, and what is said of our own code, is left to Node.
    brief: { cases: `^(?!${LEFT_TO_NODE.join("|")})` },
    sweep: {},
  },
  {
    name: "Firefox",
    command: [...NODE, "test/engines/browser.ts", "firefox"],
    environment: { VK_ICD_FILENAMES: LLVMPIPE },
    needs: { file: "/usr/bin/firefox-esr", install: 'the system package "firefox-esr"' },
    stacks: { webgpu: "WebGPU: Firefox worker with wgpu on llvmpipe", wasm: "WASM: Firefox worker" },
    // Deno has the same compiler and driver for what is large.
    brief: { cases: "^(?!the self-test refuses a GPU)" },
    sweep: { rungs: "^(?!subgroup|lanes|f16)" },
  },
];

/** The priority of all stacks, above 0 and so below others'. */
const GIVES_WAY = 15;

export interface StacksOptions {
  /** How long a host may take. */
  readonly msMax: number;
  /** See `Wanted` in `entry.ts`. */
  readonly only?: TraceName;
  /** Every rung, which takes a quarter of an hour and more. */
  readonly sweep?: boolean;
}

/** All stacks. A host starts when the first report of one of its stacks is asked for. */
export function stacks({ msMax, only, sweep = false }: StacksOptions): Stack[] {
  return hosts.flatMap((host) => {
    const part = sweep ? host.sweep : host.brief;
    let running: Promise<Reports> | undefined;
    return Object.entries(host.stacks).map(([engine, name]) => ({
      name,
      engine: engine as EngineName,
      part,
      report: async () => {
        running ??= run(host, { ...part, ...(only === undefined ? {} : { only }) }, msMax);
        const report = (await running)[engine as EngineName];
        if (report === undefined) {
          throw new Error(`${name} has no report`);
        }
        return report;
      },
    }));
  });
}

/** Runs a host's entry and returns its reports; rejects with what it wrote when it does not report. */
async function run(host: Host, wanted: Omit<Wanted, "engines">, msMax: number): Promise<Reports> {
  const { name, command, environment = {}, needs } = host;
  if (!existsSync(needs.file)) {
    throw new Error(`${name} needs ${needs.file}: install ${needs.install}`);
  }
  const [program = "", ...rest] = command;
  const engines = Object.keys(host.stacks) as EngineName[];
  const words = wordsOf({ engines, ...wanted });
  const env = {
    ...process.env,
    // Mesa insists on a directory for sockets, which a bare container lacks.
    XDG_RUNTIME_DIR: process.env["XDG_RUNTIME_DIR"] ?? mkdtempSync(join(tmpdir(), "heddle-xdg-")),
    ...environment,
  };
  const child = spawn(join(bin, program), [...rest, ...words], { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  if (child.pid !== undefined) {
    // Five compilers on two cores: tests beside them that wait for a page or a relay have to get on.
    setPriority(child.pid, GIVES_WAY);
  }
  const timer = setTimeout(() => child.kill(), msMax);
  let [out, errors] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.on("close", done));
  clearTimeout(timer);
  const begin = out.lastIndexOf(REPORT.begin);
  const end = out.lastIndexOf(REPORT.end);
  if (begin === -1 || end === -1) {
    throw new Error(`${name} ended with ${code} and no report, having begun: ${errors.slice(-2000)}${out.slice(-500)}`);
  }
  return JSON.parse(out.slice(begin + REPORT.begin.length, end)) as Reports;
}
