/**
 * The peers as single files that any host can import: their packages are written for bundlers, and Node could not load all
 * of them as they are. Also says which peers are installed. `npm run bench:peers` installs them, and nothing else does.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build, defaultClientConditions } from "vite";

/** Peers in bench/peers, with the package that tells whether they are installed. */
const PEERS: Readonly<Record<string, string>> = {
  jax: "@jax-js/jax",
  tfjs: "@tensorflow/tfjs-core",
  ort: "onnxruntime-web",
};

const repository = fileURLToPath(new URL("../..", import.meta.url));
export const PEERS_FOLDER = fileURLToPath(new URL("../peers", import.meta.url));
/** Where the bundles are put, below the repository's root. */
const BUILT = "build/bench";

export const PEER_NAMES: readonly string[] = Object.keys(PEERS);

export function installedPeers(): string[] {
  return PEER_NAMES.filter((name) => existsSync(`${PEERS_FOLDER}/node_modules/${PEERS[name]}`));
}

/** Bundles `names`; returns the path of each from the repository's root. */
export async function bundlePeers(names: readonly string[]): Promise<Record<string, string>> {
  if (names.length > 0) {
    await build({
      configFile: false,
      root: repository,
      publicDir: false,
      logLevel: "error",
      // onnxruntime-web then loads its WASM and the script around it from files, which its threads load too.
      resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
      build: {
        outDir: BUILT,
        emptyOutDir: false,
        minify: false,
        target: "es2023",
        lib: {
          entry: Object.fromEntries(names.map((name) => [name, `bench/peers/${name}.ts`])),
          formats: ["es"],
          fileName: (_format, name) => `${name}.js`,
        },
      },
    });
  }
  return Object.fromEntries(names.map((name) => [name, `${BUILT}/${name}.js`]));
}
