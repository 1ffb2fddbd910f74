/** A run's public record over HTTP; pages go on from it with the relay's events (`ui/feed.ts`). */
import type { RunView } from "../protocol/run-view.ts";
import { createPatientFetch, pause } from "./later.ts";

/**
 * For one try, not for the waits that a busy relay asks for: all of the newest versions, which are a few kilobytes; of the whole record,
 * which may be megabytes on a slow line, the time without another byte.
 */
const SILENT_MS_MAX = 20_000;

export interface FetchRunOptions {
  /** The newest so many are enough; default: all. */
  readonly versions?: number;
  readonly silentMsMax?: number;
  readonly fetch?: typeof globalThis.fetch;
  /** Waits before another try; tests pass their own. */
  readonly wait?: (ms: number) => Promise<void>;
}

/** The record, or undefined where the relay does not answer with one; a relay that says "later" is asked again then. */
export async function fetchRun(
  relay: string,
  {
    versions,
    silentMsMax = SILENT_MS_MAX,
    fetch = (input, init) => globalThis.fetch(input, init),
    wait = pause,
  }: FetchRunOptions = {},
): Promise<RunView | undefined> {
  const silence = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const rest = (): void => clearTimeout(timer);
  const listen = (): void => {
    rest();
    timer = setTimeout(() => silence.abort(), silentMsMax);
  };
  const patient = createPatientFetch({
    fetch: (input, init) => {
      listen();
      return fetch(input, init);
    },
    wait: (ms) => {
      rest();
      return wait(ms);
    },
  });
  try {
    const query = versions === undefined ? "" : `?versions=${versions}`;
    const response = await patient(`${relay}/api/run${query}`, { cache: "no-store", signal: silence.signal });
    const text = response.ok ? await textOf(response, versions === undefined ? listen : () => {}) : undefined;
    return text === undefined ? undefined : (JSON.parse(text) as RunView);
  } catch {
    return undefined; // nobody answered, or not in time, or not with JSON
  } finally {
    rest();
  }
}

/** The body; `heard` is called with every piece of it. */
async function textOf(response: Response, heard: () => void): Promise<string> {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = "";
  for (let piece = await reader?.read(); piece?.value !== undefined; piece = await reader?.read()) {
    heard();
    text += decoder.decode(piece.value, { stream: true });
  }
  return text + decoder.decode();
}
