/** The set-up before each command: two that are started together install once, and a lock of a process that was killed holds up nobody. */
import { spawn, spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";

const { pid: gone } = spawnSync("true");

test.each([
  ["one of this machine that was killed", `${hostname()} ${gone}`, 0],
  ["one elsewhere that has not touched it for minutes", "elsewhere 1", 600],
])(
  "of two commands started together one installs and the other waits for it, where the lock is of %s; a failure leaves none",
  async (_, holder, ageS) => {
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
      const lock = join(root, "node_modules/.heddle-lock");
      writeFileSync(lock, holder);
      const touchedS = Date.now() / 1_000 - ageS;
      utimesSync(lock, touchedS, touchedS);
      const ends = [1, 2].map(async () => {
        const env = { ...process.env, PATH: `${join(root, "path")}:${process.env["PATH"]}` };
        const child = spawn(process.execPath, ["tools/run.mjs", "admin"], { cwd: root, env, stdio: "ignore" });
        await new Promise((settle) => child.once("exit", settle)); // there is no command to run
      });
      await Promise.all(ends);
      expect(readFileSync(join(root, "log"), "utf8")).toBe("begins\nends\n");
      expect(readdirSync(join(root, "node_modules"))).toEqual([".heddle-install"]);
      writeFileSync(join(root, "package-lock.json"), "{ }");
      writeFileSync(join(root, "path/npm"), "#!/bin/sh\nexit 1\n");
      const env = { ...process.env, PATH: `${join(root, "path")}:${process.env["PATH"]}` };
      expect(spawnSync(process.execPath, ["tools/run.mjs", "admin"], { cwd: root, env }).status).toBe(1);
      expect(readdirSync(join(root, "node_modules"))).toEqual([".heddle-install"]);
    } finally {
      rmSync(root, { recursive: true });
    }
  },
);
