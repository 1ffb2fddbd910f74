import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import { decode, encode } from "../data/text.ts";
import { cutSample } from "../data/sample.ts";
import { createMemoryDisk, createMemoryStore } from "../store/memory.ts";
import { chooseData } from "./data-sets.ts";
import { listDatasets, readDataset, runData, storeDataset } from "./data.ts";

let folder: string;
let disk = createMemoryDisk();
let printed: string[] = [];
let faults: string[] = [];
let opened: string[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "heddle-data-"));
  disk = createMemoryDisk();
  printed = [];
  faults = [];
  opened = [];
});
afterEach(() => rm(folder, { recursive: true }));

function run(...args: string[]): Promise<number> {
  return runData(args, {
    openStore: (_, { existing }) => {
      opened.push(existing ? "what is there" : "anew");
      return Promise.resolve(createMemoryStore({ disk }));
    },
    print: (line) => printed.push(line),
    printError: (line) => faults.push(line),
  });
}

async function file(name: string, contents: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, contents);
  return path;
}

const ABOUT = ["--name", "poems", "--licence", "CC0-1.0", "--category", "fully-open"];

describe("data add", () => {
  test("keeps normalised text as shards and a record, and list shows it", async () => {
    const first = await file("a.txt", "one\r\ntwo");
    const second = await file("b.txt", "drei €\n");
    expect(await run("add", first, second, ...ABOUT)).toBe(0);
    const store = createMemoryStore({ disk });
    const record = await readDataset(store, "poems");
    expect(record).toMatchObject({ name: "poems", licence: "CC0-1.0", category: "fully-open" });
    const texts = await Promise.all(
      (record?.shards ?? []).map(async ({ digest }) => decode((await store.blobs.get(digest)) ?? [])),
    );
    expect(texts).toEqual(["one\ntwo\ndrei €\n"]);
    expect(await run("list")).toBe(0);
    expect(printed).toEqual([
      "Added poems: 17 bytes in 1 shard, CC0-1.0, fully-open",
      "poems: 17 bytes in 1 shard, CC0-1.0, fully-open",
    ]);
    expect(await run("add", first, ...ABOUT)).toBe(0);
    expect(printed.at(-1)).toBe("Replaced poems: 7 bytes in 1 shard, CC0-1.0, fully-open");
    expect(opened, "to look makes nothing").toEqual(["anew", "what is there", "anew"]);
  });

  test("takes more files than a data set has shards, and no more bytes than it may have", async () => {
    const small = await file("small.txt", "a line\n");
    expect(await run("add", ...Array.from({ length: 1_025 }, () => small), ...ABOUT)).toBe(0);
    expect(printed.at(-1)).toContain("7175 bytes in 1 shard");
    const large = await file("large.txt", "");
    await truncate(large, 268_435_456); // nothing of it is on the disk, and it is not read
    expect(await run("add", large, large, large, large, small, ...ABOUT)).toBe(1);
    expect(faults.at(-1)).toContain("1073741831 bytes together, need at most 1073741824");
  });

  test("takes nothing in that may not travel", async () => {
    const path = await file("secret.txt", "ours");
    for (const category of ["private", "sovereign", "controlled", "unique-open"]) {
      expect(await run("add", path, "--name", "ours", "--licence", "none", "--category", category)).toBe(2);
      expect(faults.at(-1)).toContain(`its category is "${category}"`);
      const { train } = cutSample(encode("words\n".repeat(90)), { name: "ours", licence: "none", category: "private" });
      await expect(storeDataset(createMemoryStore({ disk }), train)).rejects.toThrow(HeddleError);
    }
    expect([disk.blobs.size, disk.values.size]).toEqual([0, 0]);
  });

  test("explains flags that cannot be used and ends with 2", async () => {
    const path = await file("a.txt", "text");
    const cases: readonly (readonly [string, ...string[]])[] = [
      ["the commands are"],
      ["the commands are", "remove", "x"],
      ["name at least one text file", "add", ...ABOUT],
      ["needs --name, --licence and --category", "add", path],
      ["needs --name, --licence and --category", "add", path, "--name", "a", "--licence", "b", "--category", "open"],
      ["Cannot use --name", "add", path, "--name", "A b", "--licence", "b", "--category", "fully-open"],
      ["--frobnicate", "list", "--frobnicate"],
    ];
    for (const [sentence, ...args] of cases) {
      expect(await run(...args), args.join(" ")).toBe(2);
      expect(faults.at(-1)).toContain(sentence);
      expect(faults.at(-1)).toContain("npm run data -- add");
    }
    expect(await run("--help")).toBe(0);
    expect(printed.at(-1)).toContain("npm run data -- add");
  });

  test("explains files that cannot be used and ends with 1", async () => {
    const cases = [
      [folder, "it is a folder"],
      [join(folder, "absent.txt"), "no such file"],
      [await file("latin1.txt", Uint8Array.of(0x63, 0x61, 0x66, 0xe9)), "byte 3 is not UTF-8"],
      [await file("binary", Uint8Array.of(1, 0)), "so it is not text"],
      [await file("empty.txt", ""), "it has no text"],
    ] as const;
    for (const [path, sentence] of cases) {
      expect(await run("add", path, ...ABOUT)).toBe(1);
      expect(faults.at(-1)).toContain(sentence);
    }
    expect(disk.values.size).toBe(0);
  });
});

describe("readDataset()", () => {
  test("knows absent from damaged records", async () => {
    const store = createMemoryStore({ disk });
    expect(await readDataset(store, "poems")).toBeUndefined();
    expect(await listDatasets(store)).toEqual([]);
    for (const record of [
      "{",
      "{}",
      "null",
      '{"name":"poems","licence":"x","category":"fully-open","shards":[null]}',
    ]) {
      await store.keys.set("dataset/poems", encode(record));
      await expect(readDataset(store, "poems"), record).rejects.toThrow(/Cannot read data set "poems"/);
    }
  });
});

test("chooseData() trains on a data set of any name that can be added", async () => {
  const store = createMemoryStore({ disk });
  const name = "n".repeat(64);
  const { train } = cutSample(encode("words\n".repeat(90)), {
    name: "short",
    licence: "CC0-1.0",
    category: "fully-open",
  });
  await storeDataset(store, { ...train, record: { ...train.record, name } });
  const { evaluation } = await chooseData(store, [name]);
  expect(evaluation.name).toBe(`${"n".repeat(51)}-run-held-out`);
});
