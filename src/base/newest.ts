/** Keeping what is remembered bounded. */

/**
 * Deletes the key of `kept` that was added longest ago where it holds more than `max`: what is added one by one stays bounded. Maps and sets list
 * their keys in the order of insertion.
 */
export function dropOldest<K>(
  kept: { readonly size: number; keys(): Iterator<K>; delete(key: K): boolean },
  max: number,
): void {
  if (kept.size > max) {
    const oldest = kept.keys().next();
    if (oldest.done !== true) {
      kept.delete(oldest.value);
    }
  }
}
