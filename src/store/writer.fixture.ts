/**
 * A process that writes to an embedded store until it is killed: `node writer.fixture.ts <dir>`. Prints the number of each
 * round of writes once all of them were acknowledged; round i writes log entry i, key "last", and a blob, all made from i.
 */
import { writeSync } from "node:fs";
import process from "node:process";
import { createRng } from "../base/rng.ts";
import type { Bytes } from "../base/bytes.ts";
import { openEmbeddedStore } from "./embedded.ts";

/** What round i stores, of a length that depends on i: up to 100 kB. */
export function roundBytes(i: number): Bytes {
  const rng = createRng("round", i);
  return Uint8Array.from({ length: 1 + rng.below(100_000) }, () => rng.below(256));
}

export async function writeRounds(dir: string): Promise<never> {
  const store = await openEmbeddedStore(dir);
  for (let i = await store.log.length(); ; i += 1) {
    const bytes = roundBytes(i);
    const blob = store.blobs.put(bytes);
    await store.log.append(i, [bytes]);
    await store.keys.set("last", bytes);
    await blob;
    writeSync(1, `${i}\n`);
  }
}

if (process.argv[1]?.endsWith("writer.fixture.ts") === true) {
  await writeRounds(process.argv[2] as string);
}
