/**
 * Puts a newer Mesa beside the system's own: `node tools/lavapipe.mjs` leaves build/lavapipe/lvp_icd.json, a Vulkan driver
 * file for Mesa 25's lavapipe, to be named in VK_ICD_FILENAMES. Dawn refuses the 22.3 of Debian 12. It is the second
 * software adapter of tests and benchmarks: subgroups of 8 and f16, where SwiftShader has subgroups of 4 and no f16. The package
 * comes from bookworm-backports, checked by apt's own signatures and unpacked into build/ only: neither the system's sources
 * nor its packages change, and nobody has to be root. Does nothing when the driver is there.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const BUILD = fileURLToPath(new URL("../build", import.meta.url));
const FOLDER = join(BUILD, "lavapipe");
const KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg";
const SOURCE = `deb [signed-by=${KEYS}] http://deb.debian.org/debian bookworm-backports main\n`;
const DOWNLOAD_MS_MAX = 180_000;

if (!existsSync(join(FOLDER, "lvp_icd.json"))) {
  const temporary = join(BUILD, `lavapipe.${process.pid}.new`);
  try {
    unpack(temporary);
    rmSync(FOLDER, { recursive: true, force: true });
    renameSync(temporary, FOLDER);
    process.stderr.write("Unpacked Mesa's lavapipe into build/lavapipe\n");
  } catch (error) {
    process.stderr.write(`Cannot get Mesa's lavapipe: ${error.message}\n`);
    process.exitCode = 1;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** Downloads the package and leaves in `folder` the driver, and a driver file that says where it will be. */
function unpack(folder) {
  if (!existsSync("/usr/bin/apt-get") || !existsSync(KEYS)) {
    throw new Error("it comes as a Debian package, which needs apt-get and the package debian-archive-keyring");
  }
  const work = join(folder, "work");
  for (const path of ["lists/partial", "cache/archives/partial", "root"]) {
    mkdirSync(join(work, path), { recursive: true });
  }
  writeFileSync(join(work, "sources.list"), SOURCE);
  const options = [
    `Dir::Etc::sourcelist=${work}/sources.list`,
    "Dir::Etc::sourceparts=/dev/null",
    `Dir::State::lists=${work}/lists`,
    `Dir::Cache=${work}/cache`,
    "Acquire::Retries=2",
    "Acquire::http::Timeout=20",
    // As root, apt would download as a user that may not write here.
    "APT::Sandbox::User=root",
  ].flatMap((option) => ["-o", option]);
  run("apt-get", ["-qq", ...options, "update"], work);
  run("apt-get", ["-qq", ...options, "download", "mesa-vulkan-drivers/bookworm-backports"], work);
  const archive = readdirSync(work).find((entry) => entry.endsWith(".deb"));
  run("dpkg", ["-x", archive, "root"], work);
  const drivers = join(work, "root/usr/share/vulkan/icd.d");
  const file = readdirSync(drivers).find((entry) => entry.startsWith("lvp_icd"));
  const driver = JSON.parse(readFileSync(join(drivers, file), "utf8"));
  const name = basename(driver.ICD.library_path);
  const libraries = join(work, "root/usr/lib");
  const library = readdirSync(libraries, { recursive: true }).find((path) => basename(path) === name);
  renameSync(join(libraries, library), join(folder, name));
  // Relative to the driver file, so that the folder may move.
  driver.ICD.library_path = `./${name}`;
  writeFileSync(join(folder, "lvp_icd.json"), JSON.stringify(driver, null, 2));
  rmSync(work, { recursive: true });
}

function run(file, args, cwd) {
  const { status, error, stderr } = spawnSync(file, args, { cwd, timeout: DOWNLOAD_MS_MAX, encoding: "utf8" });
  if (status !== 0) {
    throw new Error(`"${file} ${args.at(-2)} ${args.at(-1)}" failed: ${(error?.message ?? stderr).trim()}`);
  }
}
