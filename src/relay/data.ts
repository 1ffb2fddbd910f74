/**
 * Data sets of a relay, and the command that adds and lists them: `npm run data -- add FILES… --name … --licence …`. A data
 * set is a small record under the key `dataset/<name>` and its shards as blobs; a run's charter copies the record. Only data
 * that may travel is taken in, because a relay serves what it holds.
 */
import { readFile, stat } from "node:fs/promises";
import process from "node:process";
import { parseArgs } from "node:util";
import { HeddleError, messageIn } from "../base/assert.ts";
import { type Bytes, concatBytes, isDigest } from "../base/bytes.ts";
import { mayTravel } from "../data/category.ts";
import type { CutDataset } from "../data/sample.ts";
import { cutShards, DATASET_SHARDS_MAX, describeDataset, isDatasetName, SHARD_BYTES_MAX } from "../data/shard.ts";
import { decode, encode, normaliseText } from "../data/text.ts";
import { CATEGORIES, type Category, type Dataset, type Shard } from "../protocol/charter.ts";
import type { Store } from "../store/store.ts";
import { runCommand, TERMINAL, type Terminal } from "./command-line.ts";
import { openPlace, PLACE_OPTIONS, readPlace, type Place } from "./place.ts";

/** One text file; larger texts are given as several files. */
const TEXT_FILE_BYTES_MAX = 268_435_456;
const DATASET_BYTES_MAX = DATASET_SHARDS_MAX * SHARD_BYTES_MAX;

const NEWLINE = 0x0a;

const KEY_PREFIX = "dataset/";

const USAGE = `npm run data -- add FILES… --name NAME --licence SPDX --category fully-open [--dir FOLDER | --nats ADDRESS]
npm run data -- list [--dir FOLDER | --nats ADDRESS]

  add               cut UTF-8 text files into shards and keep them as the data set NAME
  list              print the data sets that runs can train on (npm start -- --data NAME)

  --name NAME       lower-case letters, digits and inner . _ -
  --licence SPDX    the texts' licence: an SPDX identifier, for example CC0-1.0, or a plain sentence
  --category WHAT   ${CATEGORIES.join(", ")}; only fully-open data may be given to a relay,
                    everything else stays with its owner, who trains on it with a headless contributor
  --dir FOLDER      the relay's folder (default .heddle/relay); the relay must not be running
  --nats ADDRESS    the address that the relay is given, when it keeps its run on NATS; the relay may be running
  --help            print this text

  Limits: ${TEXT_FILE_BYTES_MAX / 1_048_576} MiB a file, ${DATASET_BYTES_MAX / 1_048_576} MiB a data set.
  CRLF line ends become LF, a byte-order mark is dropped, and each file begins a line.`;

/** What the command needs from outside. */
export interface DataSurroundings extends Terminal {
  /** `existing`: nothing is made on NATS where there is nothing yet. */
  readonly openStore: (place: Place, options: { readonly existing: boolean }) => Promise<Store>;
}

type DataCommand =
  | { readonly type: "list"; readonly place: Place }
  | {
      readonly type: "add";
      readonly place: Place;
      readonly files: readonly string[];
      readonly name: string;
      readonly licence: string;
      readonly category: Category;
    };

/** Runs the command; resolves to the exit code. */
export function runData(args: readonly string[], surroundings: DataSurroundings): Promise<number> {
  return runCommand(surroundings, {
    usage: USAGE,
    parse: () => parseDataCommand(args),
    carryOut: (command) =>
      command.type === "add"
        ? addFiles(command, surroundings)
        : withStore(surroundings, command, (store) => listAll(store, surroundings.print)),
  });
}

/** Keeps a data set: shards first, so that a record never names what is missing. Throws HeddleError if it may not travel. */
export async function storeDataset(store: Store, { record, shards }: CutDataset<Category>): Promise<Dataset> {
  checkTravel(record.name, record.category);
  for (const shard of shards) {
    await store.blobs.put(shard);
  }
  await store.keys.set(KEY_PREFIX + record.name, encode(JSON.stringify(record)));
  return record;
}

/** The record of a data set; undefined when there is none. Throws HeddleError "integrity" when it cannot be read. */
export async function readDataset(store: Store, name: string): Promise<Dataset | undefined> {
  const bytes = await store.keys.get(KEY_PREFIX + name);
  return bytes === undefined ? undefined : parseRecord(name, bytes);
}

/** Every data set of the store, by name. */
export async function listDatasets(store: Store): Promise<Dataset[]> {
  const datasets: Dataset[] = [];
  for (const key of await store.keys.list(KEY_PREFIX)) {
    const dataset = await readDataset(store, key.slice(KEY_PREFIX.length));
    if (dataset !== undefined) {
      datasets.push(dataset);
    }
  }
  return datasets;
}

function checkTravel(name: string, category: Category): void {
  if (!mayTravel(category)) {
    throw new HeddleError(
      "bad-input",
      `Cannot keep "${name}" on a relay: its category is "${category}", and a relay serves what it holds`,
    );
  }
}

function parseDataCommand(args: readonly string[]): DataCommand | "help" {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      name: { type: "string" },
      licence: { type: "string" },
      category: { type: "string" },
      ...PLACE_OPTIONS,
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const [verb, ...files] = positionals;
  if (values.help) {
    return "help";
  }
  if (verb === "list" && files.length === 0) {
    return { type: "list", place: readPlace(values) };
  }
  if (verb !== "add") {
    throw new HeddleError(
      "bad-input",
      `Cannot do "${positionals.join(" ")}": the commands are "add FILES…" and "list"`,
    );
  }
  if (files.length === 0) {
    throw new HeddleError("bad-input", "Cannot add data: name at least one text file");
  }
  const category = CATEGORIES.find((known) => known === values.category);
  if (values.name === undefined || values.licence === undefined || category === undefined) {
    throw new HeddleError(
      "bad-input",
      `Cannot add data: it needs --name, --licence and --category (one of ${CATEGORIES.join(", ")})`,
    );
  }
  if (!isDatasetName(values.name)) {
    throw new HeddleError(
      "bad-input",
      `Cannot use --name "${values.name}": it must have 1 to 64 lower-case letters, digits and inner ".", "_" or "-"`,
    );
  }
  checkTravel(values.name, category);
  return { type: "add", place: readPlace(values), files, name: values.name, licence: values.licence, category };
}

async function addFiles(command: DataCommand & { type: "add" }, surroundings: DataSurroundings): Promise<void> {
  let total = 0;
  for (const file of command.files) {
    total += await sizeOf(file);
  }
  if (total > DATASET_BYTES_MAX) {
    throw new HeddleError(
      "limit",
      `Cannot add "${command.name}": its files have ${total} bytes together, need at most ${DATASET_BYTES_MAX}`,
    );
  }
  const texts: Bytes[] = [];
  for (const file of command.files) {
    texts.push(await readText(file));
  }
  const shards = cutShards(concatBytes(linesApart(texts))); // all at once: many small files are few shards
  const record = describeDataset(command, shards);
  await withStore(surroundings, command, async (store) => {
    const before = await readDataset(store, record.name);
    await storeDataset(store, { record, shards });
    surroundings.print(`${before === undefined ? "Added" : "Replaced"} ${lineOf(record)}`);
  });
}

/** The texts, with a newline where the last line of one would run into the first of the next. */
function linesApart(texts: readonly Bytes[]): Bytes[] {
  return texts.flatMap((text, at) => {
    const whole = at === texts.length - 1 || text.length === 0 || text.at(-1) === NEWLINE;
    return whole ? [text] : [text, Uint8Array.of(NEWLINE)];
  });
}

/** Bytes of a text file. Throws HeddleError "bad-input" or "limit" with a sentence. */
async function sizeOf(file: string): Promise<number> {
  const about = await stat(file).catch((error: unknown) => {
    throw new HeddleError("bad-input", `Cannot read "${file}": ${messageIn(error)}`, { cause: error });
  });
  if (!about.isFile()) {
    const what = about.isDirectory() ? "a folder; name the text files in it" : "not a file";
    throw new HeddleError("bad-input", `Cannot read "${file}": it is ${what}`);
  }
  if (about.size > TEXT_FILE_BYTES_MAX) {
    throw new HeddleError(
      "limit",
      `Cannot read "${file}": it has ${about.size} bytes, need at most ${TEXT_FILE_BYTES_MAX}; split it into several files`,
    );
  }
  return about.size;
}

/** A text file, normalised. Throws HeddleError "bad-input" with a sentence. */
async function readText(file: string): Promise<Bytes> {
  const bytes = await readFile(file).catch((error: unknown) => {
    throw new HeddleError("bad-input", `Cannot read "${file}": ${messageIn(error)}`, { cause: error });
  });
  return normaliseText(bytes, `"${file}"`);
}

async function listAll(store: Store, print: (line: string) => void): Promise<void> {
  const datasets = await listDatasets(store);
  if (datasets.length === 0) {
    print('No data sets yet; "npm run data -- add" adds one');
  }
  for (const dataset of datasets) {
    print(lineOf(dataset));
  }
}

function lineOf({ name, licence, category, shards }: Dataset): string {
  const bytes = shards.reduce((sum, shard) => sum + shard.bytes, 0);
  return `${name}: ${bytes} bytes in ${shards.length} ${shards.length === 1 ? "shard" : "shards"}, ${licence}, ${category}`;
}

async function withStore(
  { openStore }: DataSurroundings,
  { type, place }: DataCommand,
  work: (store: Store) => Promise<void>,
): Promise<void> {
  const store = await openStore(place, { existing: type === "list" });
  try {
    await work(store);
  } finally {
    await store.close();
  }
}

function parseRecord(name: string, bytes: Uint8Array): Dataset {
  try {
    const record = JSON.parse(decode(bytes)) as Partial<Record<keyof Dataset, unknown>>;
    const { licence, shards } = record;
    const category = CATEGORIES.find((known) => known === record.category);
    if (record.name === name && typeof licence === "string" && category !== undefined && isShards(shards)) {
      return { name, licence, category, shards };
    }
  } catch (error) {
    throw new HeddleError("integrity", `Cannot read data set "${name}": its record is damaged`, { cause: error });
  }
  throw new HeddleError("integrity", `Cannot read data set "${name}": its record does not have the form it must have`);
}

function isShards(value: unknown): value is Shard[] {
  return (
    Array.isArray(value) &&
    value.every((shard: Partial<Shard> | null) => isDigest(shard?.digest) && Number.isSafeInteger(shard?.bytes))
  );
}

if (import.meta.main) {
  process.exitCode = await runData(process.argv.slice(2), {
    openStore: openPlace,
    ...TERMINAL,
  });
}
