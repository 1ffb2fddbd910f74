/**
 * Runs one of the project's commands after doing whatever set-up it needs: `node tools/run.mjs COMMAND [ARGUMENTS]`.
 * Plain JavaScript for any Node from 18 on, because on a fresh machine nothing is installed when it begins. It installs the
 * exact packages of package-lock.json, builds what is out of date (WASM kernels, web app), and then starts the command on
 * the Node that the lock file names. All set-up output goes to standard error.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

const root = fileURLToPath(new URL("..", import.meta.url));
const bin = join(root, "node_modules", ".bin");
/** Node keeps here what it has compiled: the next start takes half the time. */
const compileCache = join(root, "node_modules", ".cache", "heddle-compile");
const env = { NODE_COMPILE_CACHE: compileCache, ...process.env, PATH: `${bin}:${process.env.PATH}` };
/** Our sources are TypeScript and WGSL, run as they are. */
const nodeFlags = ["--experimental-import-text", "--disable-warning=ExperimentalWarning"];

/** Vulkan drivers that need no GPU, by the name of their adapter. */
const drivers = {
  swiftshader: "/usr/lib/chromium/vk_swiftshader_icd.json",
  lavapipe: join(root, "build", "lavapipe", "lvp_icd.json"),
};

const commands = {
  start: { steps: [install, buildWasm, buildApp], run: (args) => source("src/relay/main.ts", args) },
  contribute: { steps: [install, buildWasm], run: (args) => source("src/headless/main.ts", args) },
  admin: { steps: [install], run: (args) => source("src/relay/admin.ts", args) },
  data: { steps: [install], run: (args) => source("src/relay/data.ts", args) },
  build: { steps: [install, buildWasm, buildApp], run: () => ["true", []] },
  test: {
    steps: [install, systemPackages, lavapipe, buildWasm, buildApp],
    run: (args) => tool("vitest", ["run", ...args]),
  },
  sweep: {
    steps: [install, systemPackages, lavapipe, buildWasm, inFull],
    run: () => tool("vitest", ["run", "test/engines/engines.test.ts", "test/sim.test.ts", "test/e2e/transfer.test.ts"]),
  },
  fuzz: { steps: [install, buildWasm], run: (args) => source("test/fuzz/main.ts", args) },
  faults: { steps: [install, buildWasm], run: (args) => source("test/faults/main.ts", args) },
  bench: {
    steps: [chooseAdapter, checkBench, install, installPeers, buildWasm, buildPage],
    run: (args) => source("tools/bench.mjs", args),
  },
  experiment: { steps: [install, buildWasm], run: (args) => source("experiments/main.ts", args) },
  check: { steps: [install, buildWasm, check], run: () => ["true", []] },
  example: { steps: [checkExample, install, buildWasm], run: ([name, ...args]) => source(`examples/${name}.js`, args) },
  package: { steps: [install, buildWasm], run: () => [join(bin, "node"), [join(root, "tools", "build-package.mjs")]] },
};

/** Held by the one process that sets this checkout up; touched meanwhile. */
const lock = join(root, "node_modules", ".heddle-lock");
const LOCK_BEAT_MS = 5_000;
const LOCK_STALE_MS = 120_000;
/** Whether this process has the lock; null where there is none to have. */
let holds = false;
process.on("exit", unlock);

const [name = "", ...args] = process.argv.slice(2);
const command = commands[name];
if (command === undefined) {
  process.stderr.write(`Cannot run "${name}": the commands are ${Object.keys(commands).join(", ")}\n`);
  process.exit(2);
}
for (const step of command.steps) {
  step();
}
const [file, fileArgs] = command.run(args);
// The child holds a channel to us: if we are killed it sees the channel close and ends too.
const child = spawn(file, fileArgs, { cwd: root, env, stdio: ["inherit", "inherit", "inherit", "ipc"] });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  // A terminal sends its signals to the child as well; a supervisor only to us.
  process.on(signal, () => child.kill(signal === "SIGHUP" ? "SIGTERM" : signal));
}
child.on("error", (error) => {
  process.stderr.write(`Cannot start ${file}: ${error.message}\n`);
  process.exit(1);
});
child.on("exit", (code, signal) => process.exit(code ?? (signal === "SIGINT" ? 130 : 1)));
if (process.env.npm_lifecycle_event !== undefined) {
  // npm keeps no channel to us; when it is killed we are handed to another parent.
  const npm = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid !== npm) {
      clearInterval(watch); // a second signal would cut short how it leaves
      child.kill("SIGTERM");
    }
  }, 1_000).unref();
}

function checkBench() {
  checkName("benchmark", "bench", ".ts");
}

function checkExample() {
  checkName("example", "examples", ".js");
}

/** The first argument has to name a file of `folder`; without one that does, the names are listed. */
function checkName(what, folder, end) {
  const files = readdirSync(join(root, folder)).filter((file) => file.endsWith(end));
  const names = files.map((file) => file.slice(0, -end.length));
  if (!names.includes(args[0])) {
    say(`Cannot run the ${what} "${args[0] ?? ""}": there are ${names.join(", ")}`);
    process.exit(2);
  }
}

function install() {
  installIn(root, "Installing packages (about a minute the first time) …");
}

/** What takes too long for each change: the engine suite then runs every rung of the kernels' ladders, the simulation more seeds. */
function inFull() {
  env.HEDDLE_SWEEP = "1";
}

/** Installs the packages of a folder when its package-lock.json has changed since the last time. */
function installIn(folder, sentence) {
  const wanted = digest([join(folder, "package-lock.json")]);
  const stamp = join(folder, "node_modules", ".heddle-install");
  if (read(stamp) === wanted) {
    return;
  }
  alone(() => {
    if (read(stamp) !== wanted) {
      say(sentence);
      installAll(folder);
      writeFileSync(stamp, wanted);
    }
  });
}

function installAll(folder) {
  // The compiler and the bundler are needed to start, so NODE_ENV=production must not leave them out.
  // Not "npm ci": it empties node_modules first, under a relay that runs from it, or for nothing where the registry is away.
  const options = ["--no-save", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"];
  must("npm", ["install", "--prefix", folder, ...options]);
}

/**
 * Does `work` while no other process sets this checkout up: after an update a relay and a contributor may be started together. Who may not
 * write here cannot spoil anything either, and a file system without hard links has no lock.
 */
function alone(work) {
  const mine = `${lock}-${hostname()}-${process.pid}`;
  try {
    mkdirSync(join(root, "node_modules"), { recursive: true });
    writeFileSync(mine, `${hostname()} ${process.pid}`);
  } catch {
    work();
    return;
  }
  try {
    for (let told = false; (holds = locked(mine)) === false; told = true) {
      const holder = read(lock);
      if (isStale(holder)) {
        takeAway(holder, `${mine}-stale`);
        continue;
      }
      if (!told) {
        const [, pid] = holder.split(" ");
        say(
          `Waiting for ${pid === undefined ? "another process" : `process ${pid}`}, which is setting up this folder …`,
        );
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    }
  } finally {
    rmSync(mine, { force: true });
  }
  const beat = holds === true ? startBeat() : undefined;
  work();
  void beat?.terminate();
  unlock();
}

/** Where set-up fails, the process ends within it. */
function unlock() {
  if (holds === true) {
    rmSync(lock, { force: true });
    holds = false;
  }
}

/** Touches the lock from a thread of its own while this one waits for a command. */
function startBeat() {
  const code = `
    const { utimesSync } = require("node:fs");
    setInterval(() => {
      try {
        utimesSync(${JSON.stringify(lock)}, new Date(), new Date());
      } catch {} // it is gone: the work is done
    }, ${LOCK_BEAT_MS});`;
  const beat = new Worker(code, { eval: true });
  beat.unref();
  return beat;
}

/** Whether the lock is of a process that was killed: of this machine, or of a container that had the same name; or it is untouched. */
function isStale(holder) {
  const [host, pid] = holder.split(" ");
  if (host === hostname() && (Number(pid) === process.pid || !lives(Number(pid)))) {
    return true;
  }
  const { mtimeMs } = statSync(lock, { throwIfNoEntry: false }) ?? {};
  return mtimeMs !== undefined && Date.now() - mtimeMs > LOCK_STALE_MS;
}

/** Removes `holder`'s lock; where another one who waits was quicker and has the lock by now, that one has it back. */
function takeAway(holder, aside) {
  try {
    renameSync(lock, aside);
  } catch (error) {
    if (error.code === "ENOENT") {
      return;
    }
    throw error;
  }
  if (read(aside) !== holder) {
    linked(aside, lock);
  }
  rmSync(aside);
}

/** Whether `mine` is the lock now, as fresh as now. */
function locked(mine) {
  utimesSync(mine, new Date(), new Date());
  return linked(mine, lock);
}

/** Makes `to` another name of `from`; false where something has that name already, null where files have one name only. */
function linked(from, to) {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    return error.code === "EEXIST" ? false : null;
  }
}

function lives(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** What we are compared with is a package of its own, so that nobody installs it who did not ask for the comparison. */
function installPeers() {
  if (args[0] === "peers") {
    installIn(join(root, "bench", "peers"), "Installing the peers to compare with …");
  }
}

/** The page is built for the benchmarks that open it. */
function buildPage() {
  if (args[0] === "neighbour" || args[0] === "start") {
    buildApp();
  }
}

/** Compiles the WASM kernels; the script itself skips what is up to date. */
function buildWasm() {
  alone(() => must(join(bin, "node"), [join(root, "tools", "build-wasm.mjs")]));
}

/** Builds the page, the widget and their workers into dist/ when any of their sources has changed. */
function buildApp() {
  const sources = [
    "index.html",
    "bench.html",
    "observatory.html",
    "widget.html",
    "vite.config.ts",
    "package-lock.json",
    "src",
    "worker",
    "public",
    "shaders",
    "build",
  ];
  const wanted = digest(
    sources.flatMap((path) => filesBelow(join(root, path))).filter((path) => !path.endsWith(".test.ts")),
  );
  const stamp = join(root, "dist", ".heddle-build");
  if (read(stamp) === wanted) {
    return;
  }
  alone(() => {
    if (read(stamp) !== wanted) {
      say("Building the web app …");
      must(join(bin, "vite"), ["build", "--logLevel", "warn"]);
      mkdirSync(join(root, "dist"), { recursive: true });
      writeFileSync(stamp, wanted);
    }
  });
}

/** The tests need two browsers, a software Vulkan driver, a NATS and a TURN server and a proxy; everything else comes from npm. */
function systemPackages() {
  const needed = [
    { path: "/usr/bin/chromium", name: "chromium" },
    { path: "/usr/bin/firefox-esr", name: "firefox-esr" },
    { path: "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json", name: "mesa-vulkan-drivers" },
    { path: "/usr/sbin/nats-server", name: "nats-server" },
    { path: "/usr/bin/turnserver", name: "coturn" },
    { path: "/usr/bin/caddy", name: "caddy" },
  ].filter(({ path }) => !existsSync(path));
  if (needed.length === 0) {
    return;
  }
  const names = needed.map(({ name: packageName }) => packageName);
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) {
    say(
      `The tests need these system packages: ${names.join(", ")}. Install them (Debian: sudo apt-get install ${names.join(" ")}) and run npm test again.`,
    );
    process.exit(1);
  }
  say(`Installing system packages for the tests: ${names.join(", ")} …`);
  must("apt-get", ["update", "-qq"]);
  // In runlevel 1 Debian does not start the service of what it installs: the tests start servers of their own, on loopback.
  must("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...names], {
    DEBIAN_FRONTEND: "noninteractive",
    RUNLEVEL: "1",
  });
  const services = names.filter((packageName) => existsSync(`/lib/systemd/system/${packageName}.service`));
  spawnSync("systemctl", ["--quiet", "disable", ...services], { stdio: "ignore" }); // nor at the next boot, where there is systemd
}

/** Gets Mesa 25. Where that fails it says why, and the tests that need it fail; the others run. */
function lavapipe() {
  const done = spawnSync(process.execPath, [join(root, "tools", "lavapipe.mjs")], { stdio: ["ignore", 2, 2] });
  return done.status === 0;
}

/** Takes "--adapter NAME" out of the arguments: the software adapter that WebGPU in Node is to use, or a driver's file. */
function chooseAdapter() {
  const at = args.indexOf("--adapter");
  if (at === -1) {
    return;
  }
  const [, name = ""] = args.splice(at, 2);
  const driver = drivers[name] ?? name;
  if ((name === "lavapipe" && !lavapipe()) || !existsSync(driver)) {
    say(
      `Cannot use the adapter "${name}": there are ${Object.keys(drivers).join(" and ")}, or a Vulkan driver's .json`,
    );
    process.exit(1);
  }
  env.VK_ICD_FILENAMES = driver;
}

/** Format, lint, types, dead code. */
function check() {
  must(join(bin, "oxfmt"), ["--check", "."]);
  must(join(bin, "oxlint"), ["--deny-warnings"]);
  must(join(bin, "oxlint"), ["--type-aware", "--deny-warnings", "-c", ".oxlintrc.types.json"]);
  must(join(bin, "tsc"), ["-p", "tsconfig.json"]);
  must(join(bin, "tsc"), ["-p", "tsconfig.pure.json"]);
  must(join(bin, "knip"), []);
}

function source(path, rest) {
  return [join(bin, "node"), [...nodeFlags, join(root, path), ...rest]];
}

function tool(path, rest) {
  return [join(bin, path), rest];
}

function must(file, fileArgs, extra = {}) {
  const done = spawnSync(file, fileArgs, { cwd: root, env: { ...env, ...extra }, stdio: ["ignore", 2, 2] });
  if (done.error !== undefined || done.status !== 0) {
    say(
      `Cannot go on: "${[file.split("/").pop(), ...fileArgs].join(" ")}" failed${done.error === undefined ? "" : ` (${done.error.message})`}.`,
    );
    process.exit(1);
  }
}

function filesBelow(path) {
  if (!existsSync(path)) {
    return [];
  }
  if (!statSync(path).isDirectory()) {
    return [path];
  }
  return readdirSync(path)
    .sort()
    .flatMap((entry) => filesBelow(join(path, entry)));
}

function digest(paths) {
  const hash = createHash("sha256");
  for (const path of paths) {
    hash.update(path).update("\0").update(readFileSync(path)).update("\0");
  }
  return hash.digest("hex");
}

/** What a file holds; "" where there is none. */
function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") {
      return "";
    }
    throw error;
  }
}

function say(text) {
  process.stderr.write(`${text}\n`);
}
