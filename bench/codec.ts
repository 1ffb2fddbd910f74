/**
 * Speed and size of the update codec, and speed of the merge: `npm run bench codec`, or with a number of parameters (default
 * 25,000,000) and of contributions to merge (default 64): `npm run bench codec 4194304 8`. Prints JSON.
 *
 * The codec's speeds are in million parameters a second, the best of several runs, on the first 4,194,304 parameters.
 * `indexBits` is everything that is not the bits of a value: index, count, Rice parameter, levels, header.
 *
 * The merge runs as on the relay, from packed updates of 2 bits a value in memory to the means, after it was found to have the bits of its plain
 * twin. Its runs with 64 and with 256 entries kept of 4,096 alternate; speeds are in million coded entries for each second of
 * processor time, all threads of this process together, so that others on the machine count little. `firstMs` is the first merge
 * of a kernel, which gets its memory and is compiled meanwhile.
 */
import { cpus } from "node:os";
import process from "node:process";
import { createRng } from "../src/base/rng.ts";
import { median, quantile } from "../src/base/statistics.ts";
import type { Compression } from "../src/protocol/charter.ts";
import { applyUpdate, updateNorm } from "../src/update/delta.ts";
import { mergePacked } from "../src/update/merge.ts";
import { packUpdate } from "../src/update/pack.ts";
import { mergeUpdates } from "../src/update/twin.ts";
import { type SparseUpdate, unpackUpdate } from "../src/update/unpack.ts";
import { loadMergeKernel } from "../src/wasm/merge.ts";
import { takeRounds } from "./contest/statistics.ts";

const KEEPS = [64, 256];
const WIDTHS = [1, 2, 3, 4] as const;
const CODEC_PARAMETERS_MAX = 4_194_304;
const CODEC_RUNS = 5;
const MERGE_ROUNDS = 15;
const [parameters = 25_000_000, contributions = 64] = process.argv.slice(2).map(Number);

const rng = createRng("codec bench");
const values = Float32Array.from(
  { length: parameters },
  () => (rng.float() < 0.5 ? 1 : -1) * Math.log(1 - rng.float()),
);
const openKernel = await loadMergeKernel();
const codec = KEEPS.flatMap((keep) =>
  WIDTHS.map((bits) => measureCodec(values.subarray(0, CODEC_PARAMETERS_MAX), { keep, bits, beta: 1 })),
);
const rounds = [];
for (const keep of KEEPS) {
  rounds.push(await prepareMerge(keep));
}
const samples = await takeRounds(rounds, { rounds: MERGE_ROUNDS, nowMs: processorMs });
const merge = rounds.map(({ name, keep, entries, firstMs, memoryBytesPerParameter }) => {
  const speeds = (samples.get(name) ?? []).map((ms) => entries / ms / 1000);
  const entriesMPerS = {
    median: round(median(speeds)),
    quartiles: [round(quantile(speeds, 0.25)), round(quantile(speeds, 0.75))],
  };
  return { keep, entries, entriesMPerS, firstMs, memoryBytesPerParameter };
});
const machine = { cpu: cpus()[0]?.model ?? "unknown", node: process.version };
process.stdout.write(`${JSON.stringify({ machine, codec, parameters, contributions, merge }, null, 2)}\n`);

function measureCodec(some: Float32Array, compression: Compression) {
  const { keep, bits } = compression;
  const bytes = packUpdate(some, compression);
  const update = unpack(bytes);
  const base = new Float32Array(some.length);
  return {
    keep,
    bits,
    bytesPerParameter: round(bytes.length / some.length),
    timesSmallerThanF32: round((some.length * 4) / bytes.length),
    bitsPerEntry: round((bytes.length * 8) / update.indices.length),
    indexBits: round((bytes.length * 8) / update.indices.length - bits),
    relativeError: round(relativeError(some, update)),
    packMPerS: speed(some.length, () => packUpdate(some, compression)),
    unpackMPerS: speed(some.length, () => unpack(bytes)),
    unpackEntriesMPerS: speed(update.indices.length, () => unpack(bytes)),
    applyMPerS: speed(some.length, () => applyUpdate(base, update)),
  };
}

/** A round of contributions, which a kernel has merged once. Throws when it has not the bits of the twin. */
async function prepareMerge(keep: number) {
  const name = `keep ${keep}`;
  const sent = Array.from({ length: contributions }, (_, i) => {
    const bytes = packUpdate(rotated(i), { keep, bits: 2, beta: 1 });
    return { id: `contribution ${i}`, weight: 1000 + 7 * i, bytes, update: unpack(bytes) };
  });
  const entries = sent.reduce((sum, { update }) => sum + update.indices.length, 0);
  const packed = sent.map(({ id, weight, bytes, update }) => {
    return { id, weight, norm: updateNorm(update), bytes: bytes.length, read: async () => bytes };
  });
  const kernel = openKernel();
  const run = () => mergePacked(kernel, packed, { parameters, clipToMedian: 1, radial: false });
  const begin = processorMs();
  const merged = await run();
  const firstMs = round(processorMs() - begin);
  const plain = mergeUpdates(sent, { parameters, clipToMedian: 1, radial: false });
  const wrong = plain.findIndex((value, i) => !Object.is(value, merged[i]));
  if (wrong !== -1) {
    throw new Error(`Cannot time the merge: parameter ${wrong} is ${merged[wrong]}, need ${plain[wrong]}`);
  }
  const memoryBytesPerParameter = round(kernel.memory.buffer.byteLength / parameters);
  return { name, keep, entries, firstMs, memoryBytesPerParameter, run };
}

/** The values, begun somewhere else for each contribution. */
function rotated(contribution: number): Float32Array {
  const from = (contribution * 1_000_003) % parameters;
  const turned = new Float32Array(parameters);
  turned.set(values.subarray(from));
  turned.set(values.subarray(0, from), parameters - from);
  return turned;
}

function unpack(bytes: Uint8Array): SparseUpdate {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true);
  const result = unpackUpdate(bytes, { parameters: length, keepMax: Math.max(...KEEPS) });
  if (!result.ok) {
    throw new Error(result.detail);
  }
  return result.value;
}

/** Σ (value − sent)² / Σ value², over the entries sent. */
function relativeError(all: Float32Array, { indices, values: sent }: SparseUpdate): number {
  let missed = 0;
  let whole = 0;
  indices.forEach((index, i) => {
    const value = all[index] as number;
    missed += (value - (sent[i] as number)) ** 2;
    whole += value ** 2;
  });
  return missed / whole;
}

/** Milliseconds of processor time that this process has used. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Million `units` a second, the best of the runs. */
function speed(units: number, work: () => unknown): number {
  let least = Infinity;
  for (let run = 0; run < CODEC_RUNS; run += 1) {
    const before = performance.now();
    work();
    least = Math.min(least, performance.now() - before);
  }
  return round(units / least / 1000);
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
