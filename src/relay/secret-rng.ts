/**
 * Random numbers that nobody can foresee, from the system's generator. The relay draws validators, audits and the data of
 * measurements from them: participants see some of these draws, and from those of a seeded generator with 32 bits of seed
 * they could compute all others.
 */
import { randomFillSync } from "node:crypto";
import { rngOf, type Rng } from "../base/rng.ts";

export function createSecretRng(): Rng {
  const word = new Uint32Array(1);
  return rngOf(() => randomFillSync(word)[0] as number);
}
