/** The set-up before each command: two that are started together install once, and a lock of a process that was killed holds up nobody. */
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";

test("of two commands that are started together one installs, and the other waits for it", async () => {
  const root = mkdtempSync(join(tmpdir(), "heddle-setup-"));
  try {
    for (const folder of ["tools", "path", "node_modules"]) {
      mkdirSync(join(root, folder));
    }
    copyFileSync(resolve(import.meta.dirname, "../tools/run.mjs"), join(root, "tools/run.mjs"));
    writeFileSync(join(root, "package-lock.json"), "{}");
    writeFileSync(
      join(root, "path/npm"),
      `#!/bin/sh\necho begins >> ${root}/log\nsleep 0.5\necho ends >> ${root}/log\n`,
      {
        mode: 0o755,
      },
    );
    const { pid: gone } = spawnSync("true");
    const lock = join(root, "node_modules/.heddle-lock");
    writeFileSync(lock, String(gone));
    const ends = [1, 2].map(async () => {
      const env = { ...process.env, PATH: `${join(root, "path")}:${process.env["PATH"]}` };
      const child = spawn(process.execPath, ["tools/run.mjs", "admin"], { cwd: root, env, stdio: "ignore" });
      await new Promise((settle) => child.once("exit", settle)); // there is no command to run
    });
    await Promise.all(ends);
    expect(readFileSync(join(root, "log"), "utf8")).toBe("begins\nends\n");
    expect(existsSync(lock)).toBe(false);
  } finally {
    rmSync(root, { recursive: true });
  }
});
