/**
 * Which relay and which run this contributor takes part in. `--relay-key` and `--run` say it; a member, whose texts would be trained on for
 * whoever answers at the relay's address, is kept at the first ones that it met, from start to start, until the flags say otherwise.
 */
import { HeddleError } from "../base/assert.ts";
import { concatBytes, equalBytes, fromHex, toHex, type Bytes, type Digest } from "../base/bytes.ts";
import type { Met } from "../contributor/run.ts";
import { PUBLIC_KEY_BYTES } from "../protocol/limits.ts";
import type { Keys } from "../store/store.ts";

/** Holds the relay's public key, then the run's digest. */
const AGREED = "contributor/agreed";

export interface AgreementOptions {
  readonly keys: Keys;
  /** What the flags name; null: nothing. */
  readonly relayKey: string | null;
  readonly run: Digest | null;
  /** Whether what was met is kept for the next start. */
  readonly remembers: boolean;
  /** Called when something else than before is remembered. */
  readonly onRemembered: (met: Pick<Met, "relay" | "run">) => void;
}

/** Rejects with HeddleError "consent" for another relay or run than was agreed to. */
export function keepAgreement({
  keys,
  relayKey,
  run,
  remembers,
  onRemembered,
}: AgreementOptions): (met: Pick<Met, "relay" | "run">) => Promise<void> {
  return async (met) => {
    const before = remembers ? await keys.get(AGREED) : undefined;
    const key = relayKey ?? (before && toHex(before.subarray(0, PUBLIC_KEY_BYTES)));
    const its = toHex(met.relay);
    if (key !== undefined && key !== its) {
      throw new HeddleError(
        "consent",
        `The relay has the key ${its}, and ${key} was agreed to: it is another relay, or somebody is in between. If it is right, start with --relay-key ${its}`,
      );
    }
    const digest = run ?? (before && toHex(before.subarray(PUBLIC_KEY_BYTES)));
    if (digest !== undefined && digest !== met.run) {
      throw new HeddleError(
        "consent",
        `The relay serves the run ${met.run}, and ${digest} was agreed to. To take part in the one that it serves, start with --run ${met.run}`,
      );
    }
    const now: Bytes = concatBytes([met.relay, fromHex(met.run)]);
    if (remembers && (before === undefined || !equalBytes(before, now))) {
      await keys.set(AGREED, now);
      onRemembered(met);
    }
  };
}
