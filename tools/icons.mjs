/**
 * Draws the PNG icons in public/ from public/icon.svg with Chromium: `node tools/icons.mjs`. Run by hand when the SVG
 * changes; the PNGs are checked in, so that building needs no browser. The maskable one has its motif inside the safe zone.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { chromium } from "playwright-core";

const folder = new URL("../public/", import.meta.url);
const svg = readFileSync(new URL("icon.svg", folder), "utf8");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = await browser.newPage();
for (const { name, size, scale } of [
  { name: "icon-192.png", size: 192, scale: 1 },
  { name: "icon-512.png", size: 512, scale: 1 },
  { name: "icon-maskable-512.png", size: 512, scale: 0.72 },
]) {
  await page.setViewportSize({ width: size, height: size });
  const ground = scale === 1 ? "transparent" : "#f2f5f4";
  const inner = size * scale;
  await page.setContent(
    `<style>body{margin:0;width:${size}px;height:${size}px;display:grid;place-items:center;background:${ground}}` +
      `svg{width:${inner}px;height:${inner}px}</style>${svg}`,
  );
  writeFileSync(new URL(name, folder), await page.screenshot({ omitBackground: true }));
}
await browser.close();
