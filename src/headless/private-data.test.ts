import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readPrivateCorpus } from "./private-data.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "heddle-private-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("readPrivateCorpus() reads text files of a folder and below in path order, normalised as open texts are", async () => {
  mkdirSync(join(folder, "b"));
  writeFileSync(join(folder, "b", "two.md"), "two\r\n");
  writeFileSync(join(folder, "a.txt"), "\uFEFFone\r\n");
  writeFileSync(join(folder, "c.png"), "not text");
  const { shards } = await readPrivateCorpus(folder);
  expect(shards.map((shard) => new TextDecoder().decode(shard))).toEqual(["one\n", "two\n"]);
});

test("readPrivateCorpus() says which file is not UTF-8 text, and that a folder has no text", async () => {
  await expect(readPrivateCorpus(folder)).rejects.toThrow("no text files");
  writeFileSync(join(folder, "latin.txt"), Uint8Array.of(0x63, 0x61, 0x66, 0xe9));
  await expect(readPrivateCorpus(folder)).rejects.toThrow("latin.txt");
  await expect(readPrivateCorpus(join(folder, "none"))).rejects.toThrow("Cannot read the folder");
});

test("readPrivateCorpus() follows links, reads nothing twice, and says which text a link does not lead to", async () => {
  const elsewhere = mkdtempSync(join(tmpdir(), "heddle-linked-"));
  try {
    // As Kubernetes mounts a ConfigMap: a folder, a link to it, and links through that.
    mkdirSync(join(folder, "..2026"));
    writeFileSync(join(folder, "..2026", "a.txt"), "one\n");
    symlinkSync("..2026", join(folder, "..data"));
    symlinkSync("..data/a.txt", join(folder, "a.txt"));
    symlinkSync(folder, join(folder, "around"));
    writeFileSync(join(elsewhere, "object"), "two\n");
    symlinkSync(join(elsewhere, "object"), join(folder, "b.txt"));
    symlinkSync("gone", join(folder, ".lock"));
    const { shards } = await readPrivateCorpus(folder);
    expect(shards.map((shard) => new TextDecoder().decode(shard))).toEqual(["one\n", "two\n"]);
    symlinkSync("gone", join(folder, "c.txt"));
    await expect(readPrivateCorpus(folder)).rejects.toThrow("c.txt");
  } finally {
    rmSync(elsewhere, { recursive: true });
  }
});
