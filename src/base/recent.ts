/**
 * What came recently, in bounded memory and without a look at the rest: a young generation takes what is new, and when it is full
 * the old one is forgotten in its favour. Persistent, as states of the coordinator are.
 */
import { Map as PersistentMap } from "immutable";

export interface Recent<K, V> {
  readonly young: PersistentMap<K, V>;
  readonly old: PersistentMap<K, V>;
}

export const NOTHING_RECENT: Recent<never, never> = { young: PersistentMap(), old: PersistentMap() };

/** With `value` under `key`, in place of what was there. At least the latest `kept` keys are remembered, at most twice as many. */
export function remember<K, V>({ young, old }: Recent<K, V>, key: K, value: V, kept: number): Recent<K, V> {
  const next = young.set(key, value);
  return next.size < kept ? { young: next, old } : { young: PersistentMap(), old: next };
}

export function recall<K, V>({ young, old }: Recent<K, V>, key: K): V | undefined {
  return young.get(key) ?? old.get(key);
}
