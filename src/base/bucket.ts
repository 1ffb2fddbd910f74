/**
 * Token buckets: so much a second, and a burst after a pause. One alone for a session, or many by key in bounded memory. Who gets no
 * token is told a time of its own at which to come back, so that those who were turned away do not return together.
 */

export interface Rate {
  readonly perS: number;
  /** Tokens of a full bucket, 1 at least. */
  readonly burst: number;
}

/** Changed by `takeToken`; less than no token is what was taken without one. */
export interface Bucket {
  tokens: number;
  timeMs: number;
  /** Until here, times to come back have been given away. */
  promisedMs: number;
}

export function fullBucket({ burst }: Rate, nowMs: number): Bucket {
  return { tokens: burst, timeMs: nowMs, promisedMs: nowMs };
}

/** Fills the bucket up for the time since it was last looked at. */
export function refill(bucket: Bucket, { perS, burst }: Rate, nowMs: number): void {
  bucket.tokens = Math.min(burst, bucket.tokens + (Math.max(0, nowMs - bucket.timeMs) / 1_000) * perS);
  bucket.timeMs = nowMs;
}

/** Takes a token and returns 0, or returns the milliseconds until one is there for whoever asked now. */
export function takeToken(bucket: Bucket, rate: Rate, nowMs: number): number {
  refill(bucket, rate, nowMs);
  if (bucket.tokens >= 1) {
    bucket.tokens -= 1;
    return 0;
  }
  bucket.promisedMs = Math.max(bucket.promisedMs, nowMs) + 1_000 / rate.perS;
  return bucket.promisedMs - nowMs;
}

export interface Buckets {
  /** As `takeToken`, from the bucket of `key`. */
  take(key: string, nowMs: number): number;
  /** Takes so many tokens for what is done already: those that are not there are owed, and whoever asks next waits for them, too. */
  owe(key: string, tokens: number, nowMs: number): void;
  /** Buckets in memory. */
  readonly size: number;
}

/**
 * Buckets by key, at most `bucketsMax`: one that must be full again is forgotten for a new key. Where none is, all new keys share one
 * bucket, so that a flood from many addresses costs others of its kind and no memory.
 */
export function createBuckets(rate: Rate, bucketsMax: number): Buckets {
  const buckets = new Map<string, Bucket>(); // the one that was used longest ago first
  const fillMs = (1_000 * rate.burst) / rate.perS;
  let shared: Bucket | null = null;
  const bucketOf = (key: string, nowMs: number): Bucket => {
    const known = buckets.get(key);
    if (known !== undefined) {
      buckets.delete(key);
      buckets.set(key, known);
      return known;
    }
    const [oldest] = buckets;
    if (oldest !== undefined && buckets.size >= bucketsMax) {
      const [oldKey, { timeMs, promisedMs }] = oldest;
      if (Math.max(timeMs, promisedMs) + fillMs > nowMs) {
        shared ??= fullBucket(rate, nowMs);
        return shared;
      }
      buckets.delete(oldKey);
    }
    const made = fullBucket(rate, nowMs);
    buckets.set(key, made);
    return made;
  };
  return {
    take: (key, nowMs) => takeToken(bucketOf(key, nowMs), rate, nowMs),
    owe: (key, tokens, nowMs) => {
      const bucket = bucketOf(key, nowMs);
      refill(bucket, rate, nowMs);
      bucket.tokens -= tokens;
      bucket.promisedMs = Math.max(bucket.promisedMs, nowMs - (1_000 * Math.min(0, bucket.tokens)) / rate.perS);
    },
    get size() {
      return buckets.size;
    },
  };
}
