/**
 * Speed and size of the update codec: `npm run bench codec`. Prints JSON. Speeds are in million parameters a second, the best of
 * several runs. `indexBits` is everything that is not the bits of a value: index, count, Rice parameter, levels, header.
 */
import { cpus } from "node:os";
import process from "node:process";
import { createRng } from "../src/base/rng.ts";
import type { Compression } from "../src/protocol/charter.ts";
import { applyUpdate } from "../src/update/delta.ts";
import { packUpdate } from "../src/update/pack.ts";
import { type SparseUpdate, unpackUpdate } from "../src/update/unpack.ts";

const KEEPS = [64, 256];
const WIDTHS = [1, 2, 3, 4] as const;
const PARAMETERS = 4_194_304;
const RUNS = 5;

const rng = createRng("codec bench");
const values = Float32Array.from(
  { length: PARAMETERS },
  () => (rng.float() < 0.5 ? 1 : -1) * Math.log(1 - rng.float()),
);
const codec = KEEPS.flatMap((keep) => WIDTHS.map((bits) => measureCodec(values, { keep, bits, beta: 1 })));
const machine = { cpu: cpus()[0]?.model ?? "unknown", node: process.version };
process.stdout.write(`${JSON.stringify({ machine, parameters: PARAMETERS, codec }, null, 2)}\n`);

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
