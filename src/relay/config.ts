/** The relay's configuration: parsed once from the command line, checked, printed at the start. */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { HeddleError, messageIn } from "../base/assert.ts";
import { WORKERS_MAX } from "../update/crew.ts";
import { readIce, type IceConfig } from "./ice.ts";
import type { LogFormat } from "./log.ts";
import { PLACE_OPTIONS, readPlace, type Place } from "./place.ts";

export interface RelayConfig extends Place {
  readonly host: string;
  readonly port: number;
  /** UDP port of the WebRTC lane; 0: a free one, another at every start. */
  readonly rtcPort: number;
  /** STUN and TURN servers for contributors. */
  readonly ice: IceConfig;
  /** Header of a trusted proxy that names a connection's real address; null: there is none. */
  readonly proxyHeader: string | null;
  /** Share of all sessions, uploads, connections and event streams that one network prefix may have, 0 … 1. */
  readonly prefixShare: number;
  /** Port of the demo page that embeds the widget from another origin; 0 switches it off. */
  readonly demoPort: number;
  /** Where `/metrics`, `/healthz` and `/readyz` are served; port 0 switches them off. */
  readonly metricsHost: string;
  readonly metricsPort: number;
  /** Names of data sets (`npm run data -- list`) that a new run trains on; empty: the sample corpus. */
  readonly data: readonly string[];
  /** Threads that a large model's updates are merged on, at most. */
  readonly mergeWorkers: number;
  /** Start a contributor on this machine, so that training begins by itself. */
  readonly contributor: boolean;
  /** JSON file whose fields replace the sample charter's for a new run; null: the sample charter as it is. */
  readonly charter: string | null;
  readonly log: LogFormat;
  /** End after this version was reached; 0: never. */
  readonly untilVersion: number;
  /** 0 … 4. */
  readonly debug: number;
}

export const RELAY_USAGE = `npm start -- [options]
  --port N             port of the relay and its web page (default 8787)
  --host ADDRESS       address to listen on (default 127.0.0.1: this machine only)
  --rtc-port N         UDP port of the WebRTC lane (default: a free one; name one to open it in a firewall)
  --ice URL            a STUN or TURN server for contributors' WebRTC, up to 4 times: stun:host:port, turn:host:port or
                       turn:user:password@host:port (that password reaches every contributor)
  --turn-secret FILE   the secret that a TURN server without a password shares (coturn: static-auth-secret)
  --proxy-header NAME  header in which a proxy in front names the real address, such as X-Forwarded-For; the relay must
                       then be reached through that proxy alone
  --prefix-share N     percent of sessions, uploads, connections and event streams that one network (/24, /56) may
                       have (default 20)
  --demo-port N        port of the widget's demo page (default: port + 1; 0 switches it off)
  --metrics-port N     serve /metrics, /healthz and /readyz on this port (default: off)
  --metrics-host ADDR  address of that port (default 127.0.0.1; anyone who reaches it can read it)
  --dir FOLDER         where the run is kept (default .heddle/relay)
  --nats ADDRESS       keep the run on NATS JetStream instead; the folder then holds only what is this machine's:
                       nats://[user:password@]host[:port][,host[:port]…][/name][?replicas=N], or tls://…
                       (relays with the same address share the run: all serve contributors, one of them leads)
  --data NAME[,NAME]   data sets for a new run, added before with "npm run data -- add" (default: the sample corpus)
  --charter FILE       JSON with fields that replace the sample charter's, for a new run (model sizes, round times …)
  --merge-workers N    threads to merge a large model's updates on, 1 to ${WORKERS_MAX} (default: as many as there are cores)
  --no-contributor     do not train on this machine
  --until-version N    end once version N is merged
  --log json|text      JSON lines for programs or sentences for people (default: text on a terminal, else json)
  --help               print this text`;

/** `terminal`: a person reads what is printed. Throws HeddleError "bad-input" with a sentence for a flag that cannot be used. */
export function parseRelayConfig(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  terminal: boolean,
): RelayConfig | "help" {
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      allowNegative: true,
      options: {
        port: { type: "string", default: "8787" },
        host: { type: "string", default: "127.0.0.1" },
        "rtc-port": { type: "string", default: "0" },
        ice: { type: "string", multiple: true, default: [] },
        "turn-secret": { type: "string" },
        "proxy-header": { type: "string" },
        "prefix-share": { type: "string", default: "20" },
        "demo-port": { type: "string" },
        "metrics-port": { type: "string", default: "0" },
        "metrics-host": { type: "string", default: "127.0.0.1" },
        ...PLACE_OPTIONS,
        data: { type: "string", default: "" },
        charter: { type: "string" },
        "merge-workers": { type: "string", default: String(Math.min(WORKERS_MAX, availableParallelism())) },
        contributor: { type: "boolean", default: true },
        "until-version": { type: "string", default: "0" },
        log: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (error) {
    throw new HeddleError("bad-input", `${messageIn(error)}\n\n${RELAY_USAGE}`, {
      cause: error,
    });
  }
  if (values.help) {
    return "help";
  }
  const log = values.log ?? (terminal ? "text" : "json");
  if (log !== "json" && log !== "text") {
    throw new HeddleError("bad-input", `Cannot use --log "${log}": it must be json or text`);
  }
  const port = wholeNumber("--port", values.port, 65_535);
  return {
    host: bare(values.host),
    port,
    rtcPort: wholeNumber("--rtc-port", values["rtc-port"], 65_535),
    proxyHeader: headerName(values["proxy-header"]),
    prefixShare: wholeNumber("--prefix-share", values["prefix-share"], 100) / 100,
    ice: readIce(values.ice, values["turn-secret"] ?? null),
    demoPort:
      values["demo-port"] === undefined
        ? port === 0
          ? 0
          : port + 1
        : wholeNumber("--demo-port", values["demo-port"], 65_535),
    metricsHost: bare(values["metrics-host"]),
    metricsPort: wholeNumber("--metrics-port", values["metrics-port"], 65_535),
    ...readPlace(values),
    data: values.data === "" ? [] : values.data.split(","),
    mergeWorkers: mergeWorkers(values["merge-workers"]),
    contributor: values.contributor,
    charter: values.charter ?? null,
    log,
    untilVersion: wholeNumber("--until-version", values["until-version"], 1e9),
    debug: /^[0-4]$/.test(env["DEBUG"] ?? "") ? Number(env["DEBUG"]) : 0, // other programs' patterns do not concern us
  };
}

function mergeWorkers(text: string): number {
  const count = wholeNumber("--merge-workers", text, WORKERS_MAX);
  if (count === 0) {
    throw new HeddleError("bad-input", "Cannot use --merge-workers 0: somebody has to merge");
  }
  return count;
}

function headerName(name: string | undefined): string | null {
  if (name !== undefined && !/^[A-Za-z0-9-]{1,64}$/.test(name)) {
    throw new HeddleError("bad-input", `Cannot use --proxy-header "${name}": it must be a header's name`);
  }
  return name ?? null;
}

/** An address without the brackets of an IPv6 address in a URL. */
function bare(address: string): string {
  return address.replace(/^\[(.*)\]$/, "$1");
}

/** Reads a whole number from 0 to `max` out of a flag. */
export function wholeNumber(flag: string, text: string, max: number): number {
  const value = Number(text);
  if (!/^\d{1,10}$/.test(text) || value > max) {
    throw new HeddleError("bad-input", `Cannot use ${flag} "${text}": it must be a whole number from 0 to ${max}`);
  }
  return value;
}
