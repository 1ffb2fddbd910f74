/** The first entries of a run's ledger: its charter, its relay and version 0, which are stored before. */
import { encodeCharter } from "../protocol/charter-codec.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { storeFirst } from "./base.ts";
import type { CoordinatorOptions } from "./host.ts";
import type { Journal } from "./journal.ts";
import { applyEvent, type DurableState } from "./state.ts";

/** Begins the run of the charter in an empty store. */
export async function beginRun(
  { store, charter, initial, clock, key, epoch, referee, onEntry }: CoordinatorOptions,
  journal: Journal,
): Promise<DurableState> {
  const run = await store.blobs.put(encodeCharter(charter));
  const head = await storeFirst(store.blobs, referee, initial());
  const timeMs = clock.nowMs();
  const started: LedgerEvent = { type: "started", run, relay: key.publicKey, head };
  const events: LedgerEvent[] = epoch === undefined ? [started] : [started, { type: "led", epoch }];
  for (const entry of await journal.append(events, timeMs)) {
    onEntry?.(entry);
  }
  return events.slice(1).reduce((state, event) => applyEvent(state, event, timeMs), applyEvent(null, started, timeMs));
}
