/**
 * What the benchmark commands share: options from the command line, launches at every place, the outcome as a table or as
 * JSON lines. Options: --json; --launches N (3); --rounds N (5); --on PLACES (chromium,node-lavapipe: see `hosts.ts`); --engines ENGINES
 * (webgpu; wasm1, wasm2); --works NAMES (parts of their names); --peers NAMES (all that are installed; none).
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { compileBareLoop } from "./bare.ts";
import { bundlePeers, installedPeers, PEER_NAMES } from "./bundle.ts";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import type { Backend } from "./contender.ts";
import type { Launch } from "./contest.ts";
import { placeNamed } from "./hosts.ts";
import { firstLosses } from "./ours.ts";
import { lineOf, tableOf, type Line } from "./standings.ts";
import type { Work } from "./works.ts";

const BACKENDS: Readonly<Record<string, Backend>> = {
  webgpu: { type: "webgpu" },
  wasm1: { type: "wasm", threads: 1 },
  wasm2: { type: "wasm", threads: 2 },
};

/** Measures `all` works as the arguments ask, prints, and returns the lines. */
export async function compareWorks(all: readonly Work[], args: readonly string[]): Promise<Line[]> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      json: { type: "boolean", default: false },
      launches: { type: "string", default: "3" },
      rounds: { type: "string", default: "5" },
      on: { type: "string", default: "chromium,node-lavapipe" },
      engines: { type: "string", default: "webgpu" },
      works: { type: "string", default: "" },
      peers: { type: "string", default: installedPeers().join() },
    },
  });
  const launchCount = positive("launches", values.launches);
  const wantedWorks = all.filter(({ name }) => list(values.works || name).some((part) => name.includes(part)));
  const works = await Promise.all(wantedWorks.map(withLosses));
  if (works.length === 0) {
    throw new Error(`Cannot measure "${values.works}": the works are ${all.map(({ name }) => name).join(", ")}`);
  }
  const wanted = list(values.peers).filter((name) => name !== "none");
  const missing = wanted.filter((name) => !installedPeers().includes(name));
  if (missing.length > 0) {
    throw new Error(
      `Cannot compare with ${missing.join(", ")}: install the peers with "npm run bench:peers -- --install"`,
    );
  }
  if (installedPeers().length < PEER_NAMES.length) {
    say(`Ours alone: the peers are not installed; "npm run bench:peers" installs them and compares`);
  }
  const peers = await bundlePeers(wanted);
  const rounds = positive("rounds", values.rounds);
  const bareLoop = await compileBareLoop();
  const lines: Line[] = [];
  for (const place of list(values.on).map(placeNamed)) {
    for (const engine of list(values.engines)) {
      const backend = BACKENDS[engine];
      if (backend === undefined) {
        throw new Error(`Cannot measure engine "${engine}": the engines are ${Object.keys(BACKENDS).join(", ")}`);
      }
      const launches: Launch[] = [];
      for (let i = 0; i < launchCount; i += 1) {
        say(`${place.name}, ${engine}, launch ${i + 1} of ${launchCount} …`);
        launches.push(await place.launch({ backend, works, rounds, peers, bareLoop }));
      }
      lines.push(...works.map((work) => lineOf(work, { host: place.name, backend, launches })));
    }
  }
  process.stdout.write(values.json ? lines.map((line) => `${JSON.stringify(line)}\n`).join("") : tableOf(lines));
  return lines;
}

/** The losses of a training step, which every contender must have, come from the WASM engine. */
async function withLosses(work: Work): Promise<Work> {
  if (work.type !== "step") {
    return work;
  }
  using engine = await createWasmEngine({ threads: 1 });
  return { ...work, losses: await firstLosses(engine, work) };
}

function list(text: string): string[] {
  return text.split(",").filter((part) => part !== "");
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`Cannot measure: --${name} is "${text}", need a positive integer`);
  }
  return value;
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
