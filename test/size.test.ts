/**
 * What a visitor downloads before anything is clicked, after gzip, against named budgets. Reads `dist/`; builds it when it
 * is not there.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");
const dist = join(root, "dist");

/** Kilobytes of 1,000 bytes, gzip level 9. */
const LOADER_KB_MAX = 3;
const WIDGET_KB_MAX = 40;
const SHELL_KB_MAX = 60;
const WORKER_KB_MAX = 120;

beforeAll(() => {
  if (!existsSync(join(dist, "index.html"))) {
    execFileSync(join(root, "node_modules", ".bin", "vite"), ["build", "--logLevel", "warn"], { cwd: root });
  }
});

describe("size", () => {
  test(`the widget's loader stays within ${LOADER_KB_MAX} kB`, () => {
    expect(kilobytes(["/heddle-widget.js"])).toBeLessThanOrEqual(LOADER_KB_MAX);
  });

  test(`the widget's frame before consent stays within ${WIDGET_KB_MAX} kB`, () => {
    expect(kilobytes(["/widget.html", ...loadedBy("/widget.html")])).toBeLessThanOrEqual(WIDGET_KB_MAX);
  });

  test(`the page's shell (markup, styles, first scripts) stays within ${SHELL_KB_MAX} kB`, () => {
    expect(kilobytes(["/index.html", ...loadedBy("/index.html")])).toBeLessThanOrEqual(SHELL_KB_MAX);
  });

  test(`the training worker with its shaders stays within ${WORKER_KB_MAX} kB`, () => {
    const page = loadedBy("/index.html")
      .map((path) => text(path))
      .join("\n");
    const [worker] = page.match(/\/assets\/train-[\w-]+\.js/) ?? [];
    expect(worker).toBeDefined();
    expect(kilobytes([worker ?? ""])).toBeLessThanOrEqual(WORKER_KB_MAX);
  });

  test("the service worker keeps what the page loads first, and is one classic script", () => {
    const worker = text("/sw.js");
    for (const path of loadedBy("/index.html")) {
      expect(worker).toContain(JSON.stringify(path));
    }
    expect(worker).not.toMatch(/^\s*(import|export)\b/m);
    expect(worker).not.toContain("/api/");
  });
});

/** Everything that a page loads by itself: what its markup names, and what those scripts import at once. */
function loadedBy(page: string): string[] {
  const found = new Set([...text(page).matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map(([, path]) => path ?? ""));
  for (const path of found) {
    if (path.endsWith(".js")) {
      for (const [, name] of text(path).matchAll(/(?:from|import)\s*"\.\/([^"]+)"/g)) {
        found.add(`/assets/${name}`);
      }
    }
  }
  return [...found];
}

function kilobytes(paths: readonly string[]): number {
  return paths.reduce((sum, path) => sum + gzipSync(readFileSync(join(dist, path)), { level: 9 }).length, 0) / 1_000;
}

function text(path: string): string {
  return readFileSync(join(dist, path), "utf8");
}
