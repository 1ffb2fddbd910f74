/** `npm run experiment` as a process: what holds between two of them. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { expect, test } from "vitest";
import { openResults } from "./results.ts";

const FLAGS = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];

test("a second command for an experiment ends with a sentence while the first runs, and a killed one is in nobody's way", async () => {
  const dir = mkdtempSync(join(tmpdir(), "heddle-lock-"));
  const lock = join(dir, "proof", "lock");
  const words = [...FLAGS, join(import.meta.dirname, "main.ts"), "proof", "--arms", "single", "--dir", dir];
  const first = spawn(process.execPath, words, { stdio: "ignore" });
  const exited = once(first, "exit");
  try {
    await expect.poll(() => readIfAny(join(lock, "process")), { timeout: 30_000 }).toBe(`${first.pid}\n`);
    const second = spawnSync(process.execPath, [...words, "--fresh"], { encoding: "utf8" });
    expect(second).toMatchObject({
      status: 1,
      stdout: "",
      stderr: `Cannot run the experiment "proof": "${lock}" is in use by process ${first.pid}\n`,
    });
    const other = openResults(dir);
    expect(() => other.lock("proof-churn")).not.toThrow();
    first.kill("SIGKILL");
    await exited;
    expect(() => other.lock("proof")).not.toThrow();
  } finally {
    first.kill("SIGKILL");
    await exited;
    rmSync(dir, { recursive: true, force: true, maxRetries: 10 }); // its run may still be ending
  }
});

function readIfAny(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}
