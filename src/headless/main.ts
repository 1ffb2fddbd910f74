/**
 * `npm run contribute`: reads the flags and starts the contributor on the runtime that was asked for. Node runs it in this
 * process, Deno runs the same file in its own, and Chromium opens the relay's page and presses its buttons.
 */
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { endingOf } from "../base/assert.ts";
import { CONTRIBUTE_USAGE, parseContributeConfig, type ContributeConfig } from "./config.ts";

const inDeno = "Deno" in globalThis;
const root = resolve(import.meta.dirname, "../..");
const print = (text: string): void => {
  process.stdout.write(text);
};

/** Leaving takes so long at most; what matters is on the disk at any moment. */
const LEAVING_MS_MAX = 10_000;
/** One press of Ctrl-C arrives more than once: from the terminal and from whoever started this. */
const SAME_PRESS_MS = 500;
const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Resolves on Ctrl-C, on a polite kill, and when the process that started this one is gone. */
const stopped = new Promise<void>((settle) => {
  for (const signal of SIGNALS) {
    process.on(signal, () => settle());
  }
  process.on("disconnect", () => settle());
  process.stdout.on("error", () => settle()); // nobody reads what is printed
  if (inDeno) {
    // Under Deno there is no channel to whoever started this, so the parent is looked at instead.
    const parent = process.ppid;
    setInterval(() => process.ppid === parent || settle(), 1_000).unref();
  }
});

void stopped.then(() => {
  setTimeout(() => process.exit(0), LEAVING_MS_MAX).unref();
  setTimeout(() => SIGNALS.forEach((signal) => process.on(signal, () => process.exit(130))), SAME_PRESS_MS).unref();
});

async function run(config: ContributeConfig): Promise<void> {
  if (config.runtime === "node" || (config.runtime === "deno" && inDeno)) {
    const { contribute } = await import("./contribute.ts");
    await contribute(config, stopped, print);
  } else if (config.runtime === "deno") {
    await runInDeno();
  } else {
    const { contributeInChromium } = await import("./chromium.ts");
    await contributeInChromium(config, stopped, print);
  }
}

/** Runs this very file under Deno with the same flags; its answer is ours. */
async function runInDeno(): Promise<void> {
  const deno = join(root, "node_modules/.bin/deno");
  const flags = ["run", "--allow-all", "--node-modules-dir=manual", "--quiet", "--unstable-webgpu"];
  const env = { ...process.env, XDG_RUNTIME_DIR: process.env["XDG_RUNTIME_DIR"] ?? "/tmp" };
  const child = spawn(deno, [...flags, import.meta.filename, ...process.argv.slice(2)], {
    cwd: root,
    env,
    stdio: "inherit",
  });
  void stopped.then(() => child.kill("SIGTERM"));
  process.once("exit", () => child.kill("SIGKILL")); // where this process does not wait for it any more
  const code = await new Promise<number>((settle) => {
    child.once("exit", (status) => settle(status ?? 1));
  });
  if (code !== 0) {
    process.exit(code);
  }
}

try {
  const config = parseContributeConfig(process.argv.slice(2), availableParallelism(), process.env);
  if (config === "help") {
    print(`${CONTRIBUTE_USAGE}\n`);
  } else {
    await run(config);
  }
  process.exit(0);
} catch (error) {
  const { sentence, exitCode } = endingOf(error);
  process.stderr.write(`${sentence}\n`);
  process.exit(exitCode);
}
