/**
 * Speed and size of the update codec: `npm run bench codec`, or with a number of parameters (default 4,194,304) and of
 * contributions to merge (default 8): `npm run bench codec 16777216 4`. Prints JSON. Speeds are in million parameters a
 * second, the best of several runs; for merging, parameters times contributions. `indexBits` is everything that is not the
 * two bits of a value: index, count, Rice parameter, exponents, header.
 */
import { cpus } from "node:os";
import process from "node:process";
import { createRng } from "../src/base/rng.ts";
import type { Compression } from "../src/protocol/charter.ts";
import { applyUpdate } from "../src/update/delta.ts";
import { mergeUpdates } from "../src/update/merge.ts";
import { packUpdate } from "../src/update/pack.ts";
import { type SparseUpdate, unpackUpdate } from "../src/update/unpack.ts";

const RUNS = 5;
const [parameters = 4_194_304, contributions = 8] = process.argv.slice(2).map(Number);

const laplace = (seed: number): Float32Array<ArrayBuffer> => {
  const rng = createRng("codec bench", seed);
  return Float32Array.from({ length: parameters }, () => (rng.float() < 0.5 ? 1 : -1) * Math.log(1 - rng.float()));
};

const values = laplace(0);
const base = new Float32Array(parameters);
const results = [64, 256].map((keep) => {
  const compression: Compression = { keep, bits: 2, beta: 1 };
  const bytes = packUpdate(values, compression);
  const update = unpack(bytes, keep);
  const updates = Array.from({ length: contributions }, (_, i) => ({
    id: `contribution ${i}`,
    update: i === 0 ? update : unpack(packUpdate(laplace(i), compression), keep),
    weight: 1 + i,
  }));
  return {
    keep,
    bytesPerParameter: round(bytes.length / parameters),
    timesSmallerThanF32: round((parameters * 4) / bytes.length),
    bitsPerEntry: round((bytes.length * 8) / update.indices.length),
    indexBits: round((bytes.length * 8) / update.indices.length - 2),
    relativeError: round(relativeError(update)),
    packMPerS: speed(parameters, () => packUpdate(values, compression)),
    unpackMPerS: speed(parameters, () => unpack(bytes, keep)),
    unpackEntriesMPerS: speed(update.indices.length, () => unpack(bytes, keep)),
    mergeMPerS: speed(parameters * contributions, () => mergeUpdates(updates, { parameters, clipToMedian: 1 })),
    applyMPerS: speed(parameters, () => applyUpdate(base, update)),
  };
});
const machine = { cpu: cpus()[0]?.model ?? "unknown", node: process.version };
process.stdout.write(`${JSON.stringify({ machine, parameters, contributions, results }, null, 2)}\n`);

function unpack(bytes: Uint8Array, keepMax: number): SparseUpdate {
  const result = unpackUpdate(bytes, { parameters, keepMax });
  if (!result.ok) {
    throw new Error(result.detail);
  }
  return result.value;
}

/** Σ (value − sent)² / Σ value², over the entries sent. */
function relativeError({ indices, values: sent }: SparseUpdate): number {
  let missed = 0;
  let whole = 0;
  indices.forEach((index, i) => {
    const value = values[index] as number;
    missed += (value - (sent[i] as number)) ** 2;
    whole += value ** 2;
  });
  return missed / whole;
}

/** Million `units` a second, the best of the runs. */
function speed(units: number, work: () => unknown): number {
  let least = Infinity;
  for (let run = 0; run < RUNS; run += 1) {
    const before = performance.now();
    work();
    least = Math.min(least, performance.now() - before);
  }
  return round(units / least / 1000);
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
