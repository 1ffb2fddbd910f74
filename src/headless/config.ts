/** The headless contributor's configuration: parsed once from the command line, checked, printed at the start. */
import { parseArgs } from "node:util";
import { HeddleError, messageIn } from "../base/assert.ts";
import { isDigest, type Digest } from "../base/bytes.ts";

export const RUNTIMES = ["node", "deno", "chromium"] as const;
export type Runtime = (typeof RUNTIMES)[number];
export const ENGINES = ["auto", "webgpu", "wasm"] as const;
export type WantedEngine = (typeof ENGINES)[number];

export interface ContributeConfig {
  /** Origin of the relay, such as http://127.0.0.1:8787. */
  readonly relay: string;
  readonly runtime: Runtime;
  readonly engine: WantedEngine;
  /** Folder of text files to train on instead of the run's data; nothing of it leaves this machine. */
  readonly privateData: string | null;
  /** The run and the relay's key that were agreed to; null: what the relay serves, or what was agreed to before. */
  readonly run: Digest | null;
  readonly relayKey: string | null;
  /** Folder for the device key and what must survive a restart. */
  readonly dir: string;
  /** Share of the time the device works, 0.05 … 1. */
  readonly duty: number;
  /** Threads of the WASM engine. */
  readonly threads: number;
  readonly rtc: boolean;
  /** Agreed to exchange checkpoints with other contributors, who see this machine's address then. */
  readonly peers: boolean;
  /** Asked to stop, it sends what it has made of the round before it leaves. */
  readonly finish: boolean;
  readonly json: boolean;
  /** What is told on standard error besides: 2 and more, the Plans that the engine compiles. */
  readonly debug: number;
}

export const CONTRIBUTE_USAGE = `npm run contribute -- --relay URL [options]
  --relay URL            the relay, for example http://127.0.0.1:8787
  --runtime NAME         node (default), deno or chromium
  --engine NAME          auto (default: a real GPU, else WASM), webgpu or wasm
  --private-data FOLDER  be a member: train on the text files in FOLDER, which are never sent; the updates
                         computed from them are public for 8 rounds, without differential privacy;
                         needs https, and keeps to the relay and the run that it met first
  --plain-http           private data for a relay at http:// that is not on this machine: whoever is in
                         between can take its place
  --run DIGEST           take part in this run and in no other
  --relay-key KEY        take part at the relay with this key (64 hexadecimal digits) and at no other
  --name NAME            one device key per name (default: the runtime's name)
  --dir FOLDER           where the key and the unfinished work are kept (default .heddle/contributors/NAME)
  --duty PERCENT         share of the time the device works, 5 … 100 (default 100)
  --threads N            threads of the WASM engine (default: one less than the cores, at most 4)
  --no-rtc               send updates over the WebSocket
  --peers                fetch the model from other volunteers and send it to them, directly; they see
                         this machine's IP address, and it sees theirs (off unless you say so)
  --no-finish            leave at once when asked to stop, instead of sending what was made of the round
  --json                 print JSON lines
  --help                 print this text
Ctrl-C or SIGTERM ends it within ten seconds; a second one ends it at once. Under node and deno it sends what it has
made of a round that is half over, or is sending, before it leaves; of a younger round the next start does anew.
DEBUG=2 in the environment tells every compiled Plan on standard error: ops, kernels, FLOPs, bytes, memory.`;

/** Throws HeddleError "bad-input" with a sentence for a flag that cannot be used. */
export function parseContributeConfig(
  args: readonly string[],
  cores: number,
  env: Readonly<Record<string, string | undefined>> = {},
): ContributeConfig | "help" {
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      allowNegative: true,
      options: {
        relay: { type: "string" },
        runtime: { type: "string", default: "node" },
        engine: { type: "string", default: "auto" },
        "private-data": { type: "string" },
        "plain-http": { type: "boolean", default: false },
        run: { type: "string" },
        "relay-key": { type: "string" },
        name: { type: "string" },
        dir: { type: "string" },
        duty: { type: "string", default: "100" },
        threads: { type: "string", default: String(Math.min(4, Math.max(1, cores - 1))) },
        rtc: { type: "boolean", default: true },
        peers: { type: "boolean", default: false },
        finish: { type: "boolean", default: true },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (error) {
    throw bad(messageIn(error));
  }
  if (values.help) {
    return "help";
  }
  const runtime = oneOf("--runtime", values.runtime, RUNTIMES);
  const name = values.name ?? runtime;
  if (!/^\w[\w.-]{0,39}$/.test(name)) {
    throw bad(`Cannot use --name "${name}": it must have 1 to 40 letters, digits, "_" and inner "." or "-"`);
  }
  const relay = relayOrigin(values.relay);
  const privateData = values["private-data"] ?? null;
  if (privateData !== null && !values["plain-http"] && !isSafe(new URL(relay))) {
    throw bad(
      `Cannot train on private data for ${relay}: anybody in between can take its place. Use https://, or --plain-http`,
    );
  }
  return {
    relay,
    runtime,
    engine: oneOf("--engine", values.engine, ENGINES),
    privateData,
    run: digestIn("--run", values.run),
    relayKey: digestIn("--relay-key", values["relay-key"]),
    dir: values.dir ?? `.heddle/contributors/${name}`,
    duty: numberIn("--duty", values.duty, 5, 100) / 100,
    threads: Math.floor(numberIn("--threads", values.threads, 1, 16)),
    rtc: values.rtc,
    peers: values.peers,
    finish: values.finish,
    json: values.json,
    debug: /^[0-4]$/.test(env["DEBUG"] ?? "") ? Number(env["DEBUG"]) : 0, // other programs' patterns do not concern us
  };
}

function relayOrigin(text: string | undefined): string {
  if (text === undefined) {
    throw bad("Cannot contribute without --relay URL");
  }
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw bad(`Cannot use --relay "${text}": it must begin with http:// or https://`);
  }
  if (url.href !== `${url.origin}/`) {
    throw bad(`Cannot use --relay "${text}": a relay is at the top of its host; is it ${url.origin}?`);
  }
  return url.origin;
}

/** Nobody can be in between, or TLS says so. */
function isSafe({ protocol, hostname }: URL): boolean {
  return protocol === "https:" || hostname === "localhost" || hostname === "[::1]" || /^127\.[\d.]+$/.test(hostname);
}

/** A digest or a key: 64 hexadecimal digits. */
function digestIn(flag: string, text: string | undefined): Digest | null {
  if (text !== undefined && !isDigest(text)) {
    throw bad(`Cannot use ${flag} "${text}": it must be 64 hexadecimal digits in lower case`);
  }
  return text ?? null;
}

function oneOf<T extends string>(flag: string, text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) {
    throw bad(`Cannot use ${flag} "${text}": it must be one of ${choices.join(", ")}`);
  }
  return found;
}

function numberIn(flag: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value < min || value > max) {
    throw bad(`Cannot use ${flag} "${text}": it must be a number from ${min} to ${max}`);
  }
  return value;
}

function bad(sentence: string): HeddleError {
  return new HeddleError("bad-input", `${sentence}\n\n${CONTRIBUTE_USAGE}`);
}
