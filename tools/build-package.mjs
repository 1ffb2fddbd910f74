/**
 * Builds the package that others install, into `build/package/`: the engine as one module for browsers, bundlers, Node and
 * Deno, its thread's entry, the WASM files beside them, types, examples and the manual; and packs it as `build/*.tgz`. The
 * project's own root is the app and stays private. Takes no arguments; needs Node 26 and `build/*.wasm`.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { textPlugin } from "../vite.config.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const out = join(root, "build", "package");
const bin = join(root, "node_modules", ".bin");

/**
 * In the sources, files are addressed from where they lie; in the package they lie beside the module. The user's bundler
 * must find the addresses as they are written, so ours must not touch them: they are hidden from it for the while.
 */
const besidePlugin = {
  name: "beside",
  enforce: "pre",
  transform: (code) => ({
    code: code.replaceAll(
      /new URL\((?:\/\*.*?\*\/ )?"(\.[^"]+)", import\.meta\.url\)/g,
      (_all, path) => `__beside(${JSON.stringify(`./${basename(path).replace(/\.ts$/, ".js")}`)})`,
    ),
    map: null,
  }),
  renderChunk: (code) => ({
    code: code.replaceAll(/__beside\((["'`])(.+?)\1\)/g, 'new URL("$2", import.meta.url)'),
    map: null,
  }),
};

rmSync(out, { recursive: true, force: true });
await build({
  configFile: false,
  root,
  logLevel: "warn",
  publicDir: false,
  plugins: [textPlugin(), besidePlugin],
  build: {
    outDir: out,
    target: "es2023",
    minify: false,
    lib: {
      entry: {
        engine: join(root, "src/library/engine.ts"),
        "thread-entry": join(root, "src/wasm/thread-entry.ts"),
      },
      formats: ["es"],
    },
    rolldownOptions: { output: { entryFileNames: "[name].js", chunkFileNames: "[name].js" } },
  },
});
for (const name of ["heddle.wasm", "heddle-threads.wasm", "heddle-fused.wasm", "heddle-fused-threads.wasm"]) {
  copyFileSync(join(root, "build", name), join(out, name));
}
execFileSync(join(bin, "tsc"), ["-p", "tsconfig.package.json"], { cwd: root, stdio: "inherit" });
cpSync(join(root, "examples"), join(out, "examples"), { recursive: true });
copyFileSync(join(root, "LICENSE"), join(out, "LICENSE"));
copyFileSync(join(root, "docs", "engine.md"), join(out, "README.md"));

const { name, version, license, type } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const described = {
  name,
  version,
  description: "Train and run small language models on WebGPU and WASM, in browsers, Node and Deno",
  license,
  type,
  exports: { "./engine": { types: "./types/library/engine.d.ts", default: "./engine.js" } },
  files: ["*.js", "*.wasm", "types", "examples"],
  sideEffects: ["./thread-entry.js"],
  engines: { node: ">=24" },
};
writeFileSync(join(out, "package.json"), `${JSON.stringify(described, null, 2)}\n`);
const packed = execFileSync("npm", ["pack", "--json", "--pack-destination", join(root, "build")], { cwd: out });
const [{ filename, size }] = JSON.parse(packed.toString());
process.stdout.write(`${join("build", filename)}: ${Math.round(size / 1000)} kB\n`);
