/**
 * Where the documents point: each link and picture of README.md and docs/ that is not an address elsewhere leads to a file
 * that is there, and to a heading of it where one is named. What Git ignores is there for who made it, and in no clone.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");
const documents = [
  "README.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md"))
    .map((path) => join("docs", path)),
];

test.each(documents)("%s points to what is there", (path) => {
  expect(targetsOf(prose(path)).filter((target) => isBroken(target, path))).toEqual([]);
});

test.each([
  ["[a](gone.md)", ["gone.md"]],
  ["![b](../gone.svg)", ["../gone.svg"]],
  ["[c](layout.md#no-such-heading)", ["layout.md#no-such-heading"]],
  ["[d](#no-such-heading)", ["#no-such-heading"]],
  ["[e](layout.md) [f](https://example.org/gone) [g](../README.md)", []],
])("%s, as docs/layout.md would say it, is seen for what it is", (text, broken) => {
  expect(targetsOf(text).filter((target) => isBroken(target, "docs/layout.md"))).toEqual(broken);
});

/** A document's text without its code, in which brackets mean something else. */
function prose(path: string): string {
  return readFileSync(join(root, path), "utf8")
    .replaceAll(/^```[^]*?^```/gm, "")
    .replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]()]/g, ""));
}

function targetsOf(text: string): string[] {
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = ""]) => target)
    .filter((target) => !/^[a-z]+:/.test(target));
}

function isBroken(target: string, from: string): boolean {
  const [path = "", heading] = target.split("#");
  const at = path === "" ? join(root, from) : resolve(root, dirname(from), path);
  if (relative(root, at).startsWith("..") || !existsSync(at)) {
    return true;
  }
  return heading !== undefined && !headingsOf(relative(root, at)).includes(heading);
}

/** What a page calls the headings of a document in its addresses. */
function headingsOf(path: string): string[] {
  return [...readFileSync(join(root, path), "utf8").matchAll(/^#+ (.+)$/gm)].map(([, title = ""]) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(" ", "-"),
  );
}
