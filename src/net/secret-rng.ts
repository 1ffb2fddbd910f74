/**
 * Random numbers that nobody can foresee, from the system's generator, in Node, Deno and browsers. The relay draws validators, audits
 * and the data of measurements from them, and contributors the nonces of their sessions: participants see some of these draws, and
 * from those of a seeded generator with 32 bits of seed they could compute all others.
 */
import { rngOf, type Rng } from "../base/rng.ts";

/** Words that the generator is asked for at a time: one costs it nearly as much. */
const WORDS = 1_024;

export function createSecretRng(): Rng {
  const words = new Uint32Array(WORDS);
  let used = WORDS;
  return rngOf(() => {
    if (used === WORDS) {
      crypto.getRandomValues(words);
      used = 0;
    }
    used += 1;
    return words[used - 1] as number;
  });
}
