/**
 * Where launches take place: each is a fresh Node process, or a fresh Chromium with one page whose worker does the work. The
 * page is cross-origin isolated, so that WASM may use threads.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { openBrowser } from "../../test/e2e/browser.ts";
import { serveIsolated } from "../../test/fixtures/isolated-server.ts";
import { PEERS_FOLDER } from "./bundle.ts";
import type { Launch, Order } from "./contest.ts";
import { MARKS } from "./marks.ts";

/** An order without what only the host knows. */
export type Task = Omit<Order, "filesUrl">;

export interface Place {
  readonly name: string;
  launch(task: Task): Promise<Launch>;
}

const LAUNCH_MS_MAX = 1_800_000;
const SWIFTSHADER_ICD = "/usr/lib/chromium/vk_swiftshader_icd.json";

const repository = fileURLToPath(new URL("../..", import.meta.url));

/** Places by the name they have on the command line; "node" takes the Vulkan driver that VK_ICD_FILENAMES names. */
export function placeNamed(name: string): Place {
  switch (name) {
    case "chromium":
      return { name, launch: launchInChromium };
    case "node":
      return { name, launch: (task) => launchInNode(task, undefined) };
    case "node-swiftshader":
      return { name, launch: (task) => launchInNode(task, SWIFTSHADER_ICD) };
    case "node-lavapipe":
      return { name, launch: (task) => launchInNode(task, lavapipeIcd()) };
    default:
      throw new Error(`Cannot measure on "${name}": the places are chromium, node, node-swiftshader and node-lavapipe`);
  }
}

/** Mesa 25's driver, which is fetched when it is not there yet. */
function lavapipeIcd(): string {
  execFileSync(process.execPath, [`${repository}tools/lavapipe.mjs`], { stdio: ["ignore", 2, 2] });
  return `${repository}build/lavapipe/lvp_icd.json`;
}

function launchInNode(task: Task, icd: string | undefined): Promise<Launch> {
  if (icd !== undefined && !existsSync(icd)) {
    throw new Error(`Cannot measure in Node: there is no Vulkan driver at "${icd}"`);
  }
  const local = (path: string): string => pathToFileURL(repository + path).href;
  const order: Order = {
    ...task,
    peers: Object.fromEntries(Object.entries(task.peers).map(([name, path]) => [name, local(path)])),
    filesUrl: `${PEERS_FOLDER}/node_modules/`,
  };
  const flags = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];
  const entry = fileURLToPath(new URL("node.ts", import.meta.url));
  const child = spawn(process.execPath, [...flags, entry, JSON.stringify(order)], {
    // It sees the channel close when this process is killed, and ends too.
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    env: icd === undefined ? process.env : { ...process.env, VK_ICD_FILENAMES: icd },
    timeout: LAUNCH_MS_MAX,
  });
  let [output, errors] = ["", ""];
  child.stdout?.on("data", (chunk) => (output += chunk));
  child.stderr?.on("data", (chunk) => (errors += chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      const [begin, end] = [output.indexOf(MARKS.begin), output.indexOf(MARKS.end)];
      if (begin === -1 || end === -1) {
        reject(new Error(`Cannot measure in Node: it ended with ${signal ?? code}\n${errors.slice(-2_000)}`));
        return;
      }
      resolve(JSON.parse(output.slice(begin + MARKS.begin.length, end)) as Launch);
    });
  });
}

async function launchInChromium(task: Task): Promise<Launch> {
  await using server = await serveIsolated();
  const browser = await openBrowser({ gpu: true });
  try {
    const page = await browser.newPage();
    await page.goto(`${server.origin}/bench/contest/page/index.html`);
    const order: Order = {
      ...task,
      peers: Object.fromEntries(Object.entries(task.peers).map(([name, path]) => [name, `${server.origin}/${path}`])),
      filesUrl: `${server.origin}/bench/peers/node_modules/`,
    };
    await page.evaluate(`hold(${JSON.stringify(order)})`);
    await page.waitForFunction("globalThis.launch !== undefined", undefined, { timeout: LAUNCH_MS_MAX });
    const launch = (await page.evaluate("globalThis.launch")) as Launch | { readonly thrown: string };
    if ("thrown" in launch) {
      throw new Error(`Cannot measure in Chromium: ${launch.thrown}`);
    }
    return launch;
  } finally {
    await browser.close();
  }
}
