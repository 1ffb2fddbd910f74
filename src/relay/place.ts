/** Where a relay keeps its run: the embedded store in a folder, or a NATS server or cluster. */
import { openEmbeddedStore, type EmbeddedStore } from "../store/embedded.ts";
import { parseNatsAddress, type NatsAddress } from "../store/nats-address.ts";
import { openNatsStore, type NatsOptions } from "../store/nats.ts";
import type { Store } from "../store/store.ts";

export interface Place {
  /** Folder of the embedded store. On NATS only what belongs to this machine is in it. */
  readonly dir: string;
  /** null: the embedded store. */
  readonly nats: NatsAddress | null;
}

/** The relay's own key: in a folder a file beside the store, on NATS one of the store's keys. */
export const KEY_FILE = "relay.key";
/** Under this key of a store on NATS is the lease of who leads. */
export const LEADER_KEY = "leader";

/** The store of a place. The embedded one copies itself faster than `copy.ts` could. */
export type PlacedStore = Store & Partial<Pick<EmbeddedStore, "backup">>;

/** Options for parseArgs(); `readPlace` reads what they gave. */
export const PLACE_OPTIONS = {
  dir: { type: "string", default: ".heddle/relay" },
  nats: { type: "string" },
} as const;

/** Throws HeddleError "bad-input" for an address that is none. */
export function readPlace({ dir, nats }: { readonly dir: string; readonly nats?: string | undefined }): Place {
  return { dir, nats: nats === undefined ? null : parseNatsAddress(nats) };
}

/** Throws HeddleError "store" with a sentence when the place cannot be had. `onWarning` is told what an operator should change. */
export function openPlace(
  { dir, nats }: Place,
  options: Pick<NatsOptions, "onWarning" | "existing"> = {},
): Promise<PlacedStore> {
  return nats === null ? openEmbeddedStore(dir) : openNatsStore(nats, options);
}

/** For people, without passwords. */
export function showPlace({ dir, nats }: Place): string {
  return nats === null ? dir : nats.shown;
}
