/**
 * The run that a relay serves: begun once from the sample charter, the operator's changes to it and the chosen data; read
 * back from the store ever after. The charter is fixed by its digest in the ledger's first event.
 */
import { readFile, stat } from "node:fs/promises";
import { HeddleError, messageIn } from "../base/assert.ts";
import { checkCharter, decodeCharter, encodeCharter } from "../protocol/charter-codec.ts";
import type { Bytes } from "../base/bytes.ts";
import type { Charter } from "../protocol/charter.ts";
import { sampleCharter } from "../protocol/sample.ts";
import type { Store } from "../store/store.ts";
import type { RelayConfig } from "./config.ts";
import { chooseData, readShards } from "./data-sets.ts";

const CHARTER_KEY = "charter";
const CHARTER_FILE_BYTES_MAX = 65_536;
/** Tokens are bytes. */
const BYTE_VALUES = 256;
/** Fields of the charter that an operator's file may replace. */
const CHANGEABLE = [
  "name",
  "purpose",
  "model",
  "inner",
  "uplink",
  "newcomers",
  "downlink",
  "outer",
  "round",
  "trust",
  "seed",
] as const;

export interface Run {
  readonly charter: Charter;
  readonly train: readonly Bytes[];
  readonly evaluation: readonly Bytes[];
  /** The place held this run already. */
  readonly kept: boolean;
}

/**
 * A charter counts once the ledger has begun: one that turned out to be too big for this machine leaves the place free for
 * another try. Throws HeddleError "bad-input" for a charter file or data set that cannot be used, "integrity" for damaged
 * data, "store" when another process has begun a run here meanwhile.
 */
export async function openRun(store: Store, config: RelayConfig): Promise<Run> {
  const found = await store.keys.get(CHARTER_KEY);
  const stored = (await store.log.length()) === 0 ? undefined : found;
  const charter = stored === undefined ? await beginRun(store, config, found) : readStored(stored);
  return {
    kept: stored !== undefined,
    charter,
    train: await readShards(store, charter.train),
    evaluation: await readShards(store, [charter.evaluation]),
  };
}

/** `found` is the charter of a run that did not begin. */
async function beginRun(store: Store, config: RelayConfig, found: Bytes | undefined): Promise<Charter> {
  const { train, evaluation } = await chooseData(store, config.data);
  const changed = config.charter === null ? {} : await readChanges(config.charter);
  const checked = checkCharter(merge(sampleCharter(train, evaluation), changed));
  if (!checked.ok) {
    throw new HeddleError("bad-input", `Cannot begin a run with this charter: ${checked.detail}`);
  }
  const { vocabulary } = checked.value.model;
  if (vocabulary < BYTE_VALUES) {
    const message = `Cannot begin a run with this charter: got a vocabulary of ${vocabulary}, need at least ${BYTE_VALUES}, one for each byte of text`;
    throw new HeddleError("bad-input", message);
  }
  if (!(await store.keys.compareAndSet(CHARTER_KEY, found, encodeCharter(checked.value)))) {
    throw new HeddleError("store", "Cannot begin a run: another process has begun one here meanwhile");
  }
  return checked.value;
}

/** The charter of the store's run. Throws HeddleError "bad-input" when none has begun, or it cannot be read. */
export async function readCharter(store: Store): Promise<Charter> {
  const stored = (await store.log.length()) === 0 ? undefined : await store.keys.get(CHARTER_KEY);
  if (stored === undefined) {
    throw new HeddleError("bad-input", "Cannot read the run: none has begun here");
  }
  return readStored(stored);
}

function readStored(bytes: Uint8Array): Charter {
  const decoded = decodeCharter(bytes);
  if (!decoded.ok) {
    const sentence = `Cannot go on with this run: its charter is damaged or of another version of Heddle, which has to finish it (${decoded.detail})`;
    throw new HeddleError("bad-input", sentence);
  }
  return decoded.value;
}

/** A charter file's fields. Throws HeddleError "bad-input" with a sentence. */
async function readChanges(path: string): Promise<Readonly<Record<string, unknown>>> {
  const unreadable = (error: unknown): never => {
    const why = messageIn(error);
    throw new HeddleError("bad-input", `Cannot read the charter file "${path}": ${why}`, { cause: error });
  };
  const { size } = await stat(path).catch(unreadable);
  if (size > CHARTER_FILE_BYTES_MAX) {
    throw new HeddleError(
      "limit",
      `Cannot read the charter file "${path}": it has ${size} bytes, need at most ${CHARTER_FILE_BYTES_MAX}`,
    );
  }
  const text = await readFile(path, "utf8").catch(unreadable);
  let changes: unknown;
  try {
    changes = JSON.parse(text);
  } catch (error) {
    throw new HeddleError("bad-input", `Cannot read the charter file "${path}": it is not JSON`, { cause: error });
  }
  if (typeof changes !== "object" || changes === null || Array.isArray(changes)) {
    throw new HeddleError("bad-input", `Cannot read the charter file "${path}": it must hold an object`);
  }
  const unknown = Object.keys(changes).filter((field) => !CHANGEABLE.some((known) => known === field));
  if (unknown.length > 0) {
    throw new HeddleError(
      "bad-input",
      `Cannot read the charter file "${path}": "${unknown[0]}" is not one of ${CHANGEABLE.join(", ")}`,
    );
  }
  return changes as Readonly<Record<string, unknown>>;
}

/** One level deep: sections of the charter keep the fields that the changes do not name. */
function merge(charter: Charter, changes: Readonly<Record<string, unknown>>): Charter {
  const merged: Record<string, unknown> = { ...charter };
  for (const [field, change] of Object.entries(changes)) {
    const present = merged[field];
    merged[field] =
      typeof present === "object" && typeof change === "object" && change !== null ? { ...present, ...change } : change;
  }
  return merged as unknown as Charter;
}
