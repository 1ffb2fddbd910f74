/** Where the bytes of WASM modules come from where nobody brings them: the files that lie beside the code. */
import { HeddleError, messageIn } from "../base/assert.ts";

/** The engine's module for threads that share memory, or the one with a memory of its own. Throws HeddleError "unreachable". */
export function loadEngine(shared: boolean): Promise<BufferSource> {
  const url = shared
    ? new URL("../../build/heddle-threads.wasm", import.meta.url)
    : new URL("../../build/heddle.wasm", import.meta.url);
  return loadModule(url, "the processor engine");
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
