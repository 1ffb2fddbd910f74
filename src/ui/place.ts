/**
 * The one place that a browser has for a working tab (Web Locks), and storage that works where the browser denies it. Used
 * by the page and the widget's frame.
 */
import type { TextStore } from "./agreement.ts";

const PLACE = "heddle-device";

/**
 * Takes the place; resolves to a function that gives it back, or to null when another tab has it. Browsers without Web
 * Locks let every tab work. A page that holds a lock is also not frozen in the background.
 */
export function openPlace(locks: LockManager | undefined): Promise<(() => void) | null> {
  if (locks === undefined) {
    return Promise.resolve(() => undefined);
  }
  return new Promise((resolve) => {
    locks
      .request(PLACE, { ifAvailable: true }, (lock) => {
        if (lock === null) {
          resolve(null);
          return undefined;
        }
        return new Promise<void>((giveBack) => resolve(giveBack));
      })
      // Denied, as to frames of other sites where their storage is blocked: then there is nobody to take turns with.
      .catch(() => resolve(() => undefined));
  });
}

/** The store that `open` gives, or one that forgets with the page where the browser denies storage or it is full. */
export function safeStore(open: () => TextStore): TextStore {
  const memory = new Map<string, string>();
  const attempt = <T>(use: (store: TextStore) => T): T | undefined => {
    try {
      return use(open());
    } catch {
      return undefined; // Denied or full: memory holds it for as long as the page is open.
    }
  };
  return {
    getItem: (key) => memory.get(key) ?? attempt((store) => store.getItem(key)) ?? null,
    setItem: (key, value) => {
      memory.set(key, value);
      attempt((store) => {
        store.setItem(key, value);
        memory.delete(key); // What the store has counts: another tab may change it.
      });
    },
    removeItem: (key) => {
      memory.delete(key);
      attempt((store) => store.removeItem(key));
    },
  };
}
