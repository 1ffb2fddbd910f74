/**
 * Builds the contributor page, the widget's frame, their workers and the service worker into `dist/`. Shaders and other text
 * are inlined; the service worker gets the list of files it must keep; the documents are put beside the page as plain text.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

/** `import text from "./x.wgsl" with { type: "text" }`, as Node and Deno have it, without lines that are comments: a tenth of the training worker. */
export function textPlugin(): Plugin {
  return {
    name: "text",
    enforce: "pre",
    transform(code, id) {
      const text = (): string => JSON.stringify(code.replaceAll(/^[ \t]*\/\/.*\n/gm, ""));
      return id.endsWith(".wgsl") ? { code: `export default ${text()};`, map: null } : null;
    },
  };
}

/** Files of public/ that belong to the shell. */
const SHELL_PUBLIC = ["icon.svg", "icon-192.png", "icon-512.png", "manifest.webmanifest"];

/**
 * Writes the shell's files into sw.js: the page, and what it loads before anything is clicked. Workers, engines and the
 * widget are kept when they are used. The version is the digest of their contents.
 */
function shellPlugin(): Plugin {
  return {
    name: "shell",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const page = bundle["index.html"];
      const worker = Object.values(bundle).find((output) => output.fileName === "sw.js");
      if (worker?.type !== "chunk" || page?.type !== "asset") {
        this.error("Cannot list the shell: index.html and sw.js must both be in the build");
      }
      const html = String(page.source);
      const loaded = [...html.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].flatMap(([, path]) =>
        path === undefined ? [] : [path],
      );
      const hash = createHash("sha256").update(html);
      for (const name of SHELL_PUBLIC) {
        hash.update(readFileSync(join("public", name)));
      }
      const files = [...new Set(loaded), ...SHELL_PUBLIC.map((name) => `/${name}`)];
      const version = hash.digest("hex").slice(0, 12);
      worker.code = `const SHELL_FILES=${JSON.stringify(files)},SHELL_VERSION=${JSON.stringify(version)};\n${worker.code}`;
    },
  };
}

/** docs/*.md as /docs/*.txt: browsers show plain text and download Markdown. */
function documentsPlugin(): Plugin {
  return {
    name: "documents",
    apply: "build",
    generateBundle() {
      for (const name of readdirSync("docs").filter((file) => file.endsWith(".md"))) {
        const fileName = `docs/${name.replace(/\.md$/, ".txt")}`;
        this.emitFile({ type: "asset", fileName, source: readFileSync(join("docs", name)) });
      }
    },
  };
}

export default defineConfig({
  plugins: [textPlugin(), shellPlugin(), documentsPlugin()],
  worker: { format: "es", plugins: () => [textPlugin()] },
  build: {
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: {
        index: "index.html",
        bench: "bench.html",
        observatory: "observatory.html",
        widget: "widget.html",
        sw: "worker/sw.ts",
      },
      output: {
        entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
        chunkFileNames: "assets/[name]-[hash].js",
      },
    },
  },
});
