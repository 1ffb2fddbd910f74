/** Where the bytes of WASM modules come from where nobody brings them: the files that lie beside the code. */
import { HeddleError, messageIn } from "../base/assert.ts";

export interface EngineModule {
  /** For threads that share memory, or with a memory of its own. */
  readonly shared: boolean;
  /** With multiply-adds that round once where the processor has them. */
  readonly fused: boolean;
}

/** One of the engine's modules. Throws HeddleError "unreachable". */
export function loadEngine(module: EngineModule): Promise<BufferSource> {
  return loadModule(urlOf(module), "the processor engine");
}

/** Bundlers look for addresses that are spelled out. */
function urlOf({ shared, fused }: EngineModule): URL {
  if (fused) {
    return shared
      ? new URL("../../build/heddle-fused-threads.wasm", import.meta.url)
      : new URL("../../build/heddle-fused.wasm", import.meta.url);
  }
  return shared
    ? new URL("../../build/heddle-threads.wasm", import.meta.url)
    : new URL("../../build/heddle.wasm", import.meta.url);
}

/** The bytes at `url`, which are `what`. Throws HeddleError "unreachable". */
export async function loadModule(url: URL, what: string): Promise<BufferSource> {
  try {
    if (url.protocol === "file:") {
      return new Uint8Array(await process.getBuiltinModule("node:fs/promises").readFile(url));
    }
    const response = await fetch(url);
    if (!response.ok) {
      throw new Error(`the server answers ${response.status}`);
    }
    return await response.arrayBuffer();
  } catch (error) {
    const why = messageIn(error);
    throw new HeddleError("unreachable", `Cannot load ${what} from ${url.href}: ${why}`, { cause: error });
  }
}
