/** A short ledger for tests of those who read one: its events, and what writes any as entries. */
import type { Bytes } from "../base/bytes.ts";
import { createDeviceKey } from "../net/device-key.ts";
import { appendEntry, EMPTY_CHAIN } from "../protocol/chain.ts";
import { contributorIdOf } from "../protocol/codec.ts";
import { countingBytes, exampleEvents } from "../protocol/examples.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";

/** The relay's. */
export const key = await createDeviceKey();
export const publicKey = countingBytes(32);
export const contributor = contributorIdOf(publicKey);
export const started = { ...exampleEvents[0], relay: key.publicKey } as Extract<LedgerEvent, { type: "started" }>;
export const EVENTS: readonly LedgerEvent[] = [
  started,
  { type: "introduced", contributor, publicKey, agent: "a client" },
  { type: "opened", round: 1, baseVersion: 0, seed: 5 },
  { type: "closed", round: 1 },
  { type: "skipped", round: 1 },
  { type: "banned", contributor, why: "Sends noise" },
  { type: "paused" },
];

/** The entries of `events`, in order, signed by the relay: this one or another, as a dishonest one could write them. */
export async function entries(events: readonly LedgerEvent[], relay: DeviceKey = key): Promise<Bytes[]> {
  const written: Bytes[] = [];
  let chain = EMPTY_CHAIN;
  for (const [timeMs, event] of events.entries()) {
    const added = await appendEntry(chain, event, { timeMs, key: relay });
    written.push(added.bytes);
    chain = added.chain;
  }
  return written;
}

export async function* streamOf(all: readonly Bytes[]): AsyncGenerator<Bytes> {
  yield* all;
}
