import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openEmbeddedStore } from "../store/embedded.ts";
import { backUp, KEY_FILE, restore } from "./backup.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "heddle-backup-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("backUp() and restore() do not take the folder that they copy for what is left of an attempt", async () => {
  const [to, dir] = [join(folder, "run"), join(folder, "run.partial")];
  mkdirSync(dir);
  writeFileSync(join(dir, KEY_FILE), "");
  const store = await openEmbeddedStore(dir);
  const open = readdirSync(dir);
  await expect(backUp(store, dir, to)).rejects.toMatchObject({ code: "bad-input" });
  expect(readdirSync(dir)).toEqual(open);
  await store.close();
  const closed = readdirSync(dir);
  await expect(restore(dir, to)).rejects.toMatchObject({ code: "bad-input" });
  expect(readdirSync(dir)).toEqual(closed);
  expect(readdirSync(folder)).toEqual(["run.partial"]);
});
