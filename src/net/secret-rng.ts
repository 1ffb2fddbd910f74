/**
 * Random numbers that nobody can foresee, from the system's generator, in Node, Deno and browsers. The relay draws validators, audits
 * and the data of measurements from them, and contributors the nonces of their sessions: participants see some of these draws, and
 * from those of a seeded generator with 32 bits of seed they could compute all others.
 */
import { rngOf, type Rng } from "../base/rng.ts";

export function createSecretRng(): Rng {
  const word = new Uint32Array(1);
  return rngOf(() => crypto.getRandomValues(word)[0] as number);
}
