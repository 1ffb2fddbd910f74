/**
 * The engine contract on every stack that this machine can offer: WebGPU in Node (Dawn on SwiftShader and on Mesa 25's lavapipe), in Deno (wgpu on
 * llvmpipe) and in a worker of Chromium (Dawn on SwiftShader), and WASM with two threads in all three. Two independent
 * implementations of WGSL and of the driver below catch what either lets through. The stacks run side by side in processes
 * of their own; every case is a test with a name. A missing system package fails, with a sentence saying what to install.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { beforeAll, describe, expect, test } from "vitest";
import { contractNames, REPORT, webGpuNames, type Report } from "./entry.ts";
import { GPU_CHECKS } from "./gpu-checks.ts";

const root = resolve(import.meta.dirname, "../..");
const bin = join(root, "node_modules/.bin");
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
const CHROMIUM = "/usr/bin/chromium";
const LLVMPIPE = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";
const LAVAPIPE = join(root, "build/lavapipe/lvp_icd.json");
const WASM = join(root, "build/heddle-threads.wasm");
const STACK_MS_MAX = 300_000;

interface Stack {
  readonly name: string;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** A file that the stack cannot do without, and what to install for it. */
  readonly needs: { readonly file: string; readonly install: string };
  /** Everything that its report must hold. */
  readonly names: readonly string[];
}

const NODE = ["node", "--experimental-import-text"];
const DENO = ["deno", "run", "--no-check", "-A", "--unstable-webgpu", "--unstable-raw-imports"];
const ON_WEBGPU = webGpuNames(GPU_CHECKS);
const stacks: readonly Stack[] = [
  {
    name: "WebGPU: Node with Dawn on SwiftShader",
    command: [...NODE, "test/engines/node.ts", "engine=webgpu"],
    environment: { VK_ICD_FILENAMES: SWIFTSHADER },
    needs: { file: SWIFTSHADER, install: 'the system package "chromium"' },
    names: ON_WEBGPU,
  },
  {
    name: "WebGPU: Node with Dawn on lavapipe",
    command: [...NODE, "test/engines/node.ts", "engine=webgpu"],
    environment: { VK_ICD_FILENAMES: LAVAPIPE },
    needs: { file: LAVAPIPE, install: 'Mesa 25 with "node tools/lavapipe.mjs"' },
    names: ON_WEBGPU,
  },
  {
    name: "WebGPU: Deno with wgpu on llvmpipe",
    command: [...DENO, "test/engines/deno.ts", "engine=webgpu"],
    environment: { VK_ICD_FILENAMES: LLVMPIPE },
    needs: { file: LLVMPIPE, install: 'the system package "mesa-vulkan-drivers"' },
    names: ON_WEBGPU,
  },
  {
    name: "WebGPU: Chromium worker with Dawn on SwiftShader",
    command: [...NODE, "test/engines/browser.ts", "engine=webgpu"],
    environment: {},
    needs: { file: CHROMIUM, install: 'the system package "chromium"' },
    names: ON_WEBGPU,
  },
  ...[
    { name: "WASM: Node", command: [...NODE, "test/engines/node.ts"] },
    { name: "WASM: Deno", command: [...DENO, "test/engines/deno.ts"] },
    { name: "WASM: Chromium worker", command: [...NODE, "test/engines/browser.ts"] },
  ].map(({ name, command }) => ({
    name,
    command: [...command, "engine=wasm"],
    environment: {},
    needs: { file: WASM, install: 'the kernels with "node tools/build-wasm.mjs"' },
    names: contractNames(),
  })),
];

/** Started at once for all stacks; each stack's tests wait for its own. */
const reports = new Map<string, Promise<Report>>();

beforeAll(() => {
  for (const stack of stacks) {
    const report = runStack(stack);
    report.catch(() => undefined);
    reports.set(stack.name, report);
  }
});

describe.each(stacks)("$name", (stack) => {
  test(
    "runs, and reports on every case",
    async () => {
      const report = await reports.get(stack.name);
      expect(report?.results.map(({ name }) => name)).toEqual(stack.names);
    },
    STACK_MS_MAX,
  );

  test.each(stack.names)(
    "%s",
    async (name) => {
      const report = await reports.get(stack.name);
      const result = report?.results.find((candidate) => candidate.name === name);
      expect(result, `No result for "${name}"`).toBeDefined();
      expect(result?.passed, result?.detail).toBe(true);
    },
    STACK_MS_MAX,
  );
});

/** Runs a stack's entry and returns its report; rejects with what it wrote when it does not report. */
async function runStack({ name, command, environment, needs }: Stack): Promise<Report> {
  if (!existsSync(needs.file)) {
    throw new Error(`${name} needs ${needs.file}: install ${needs.install}`);
  }
  const [program = "", ...rest] = command;
  const env = {
    ...process.env,
    // Mesa insists on a directory for sockets, which a bare container lacks.
    XDG_RUNTIME_DIR: process.env["XDG_RUNTIME_DIR"] ?? mkdtempSync(join(tmpdir(), "heddle-xdg-")),
    ...environment,
  };
  const child = spawn(join(bin, program), rest, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), STACK_MS_MAX);
  let [out, errors] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.on("close", done));
  clearTimeout(timer);
  const begin = out.lastIndexOf(REPORT.begin);
  const end = out.lastIndexOf(REPORT.end);
  if (begin === -1 || end === -1) {
    throw new Error(`${name} ended with ${code} and no report: ${errors.slice(-2000)}${out.slice(-500)}`);
  }
  const report = JSON.parse(out.slice(begin + REPORT.begin.length, end)) as Report & { thrown?: string };
  if (report.thrown !== undefined) {
    throw new Error(`${name} threw: ${report.thrown}`);
  }
  return report;
}
