/**
 * What one relay process bears, each part a command that checks what it measures before it prints:
 *
 *   npm run bench relay idle [-- 0 100 1000 5000]   memory and processor time of sessions that only stay
 *   npm run bench relay pairs [-- options]          assignments and results a second (--sessions 5000 --seconds 30 --drivers 1
 *                                                   --active 1000 --train-ms 1600 --judge-ms 800)
 *   npm run bench relay surge [-- options]          20 times the sessions come within a minute (--sessions 250 --times 20
 *                                                   --join-seconds 60, and those of pairs)
 *   npm run bench relay peers [-- options]          WebRTC links (--peers 500 --dials 1000)
 *   npm run bench relay rounds [-- 10 100 1000 10000]   what a round costs the coordinator's decisions, simulated peers
 *
 * With --json one JSON line for each measurement. Relay and drivers share this machine; their processor times are told apart.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { HeddleError } from "../src/base/assert.ts";
import { SESSIONS_MAX } from "../src/protocol/limits.ts";
import { measureIdle } from "./load/idle.ts";
import { readWhole, readWholes } from "./load/options.ts";
import { measurePeers } from "./load/peers.ts";
import { measureRounds } from "./load/rounds.ts";
import type { Outcome } from "./load/outcome.ts";
import { measurePairs } from "./load/pairs.ts";
import { measureSurge } from "./load/surge.ts";

const { values, positionals } = parse();
const whole = (name: keyof typeof values, limits: { readonly least?: number } = {}): number =>
  readWhole(`--${name}`, String(values[name]), limits);
const readSessions = (usual: number): number =>
  readWhole("--sessions", values.sessions ?? usual, { most: SESSIONS_MAX });
const readPace = () => {
  const pace = { active: whole("active"), trainMs: whole("train-ms"), judgeMs: whole("judge-ms") };
  return { seconds: whole("seconds"), drivers: whole("drivers"), ...pace };
};

const [part = "", ...rest] = positionals;
if (part === "idle") {
  const usual = [0, 100, 1_000, 5_000];
  for (const sessions of readWholes("as many sessions as", rest, { usual, least: 0, most: SESSIONS_MAX })) {
    tell(await measureIdle(sessions));
  }
} else if (part === "pairs") {
  tell(await measurePairs({ sessions: readSessions(5_000), ...readPace() }, say));
} else if (part === "surge") {
  const size = {
    sessions: readSessions(250),
    times: whole("times", { least: 2 }),
    joinSeconds: whole("join-seconds"),
  };
  tell(await measureSurge({ ...size, ...readPace() }, say));
} else if (part === "peers") {
  const [peers, dials] = [whole("peers"), whole("dials")];
  tell(await measurePeers({ peers, dials: Math.max(peers, dials) }, say));
} else if (part === "rounds") {
  const usual = [10, 100, 1_000, 10_000];
  for (const contributors of readWholes("as many contributors as", rest, { usual, most: 100_000 })) {
    tell(measureRounds(contributors));
  }
} else {
  throw new HeddleError("bad-input", `Cannot measure "${part}": the parts are idle, pairs, surge, peers, rounds`);
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      json: { type: "boolean", default: false },
      sessions: { type: "string" },
      times: { type: "string", default: "20" },
      "join-seconds": { type: "string", default: "60" },
      seconds: { type: "string", default: "30" },
      drivers: { type: "string", default: "1" },
      peers: { type: "string", default: "500" },
      dials: { type: "string", default: "1000" },
      active: { type: "string", default: "1000" },
      "train-ms": { type: "string", default: "1600" },
      "judge-ms": { type: "string", default: "800" },
    },
  });
}

/** One measurement, as a line of JSON or as a table of names and figures. */
function tell(outcome: Outcome): void {
  if (values.json) {
    process.stdout.write(`${JSON.stringify(outcome)}\n`);
    return;
  }
  const lines = Object.entries(outcome).map(([name, value]) => {
    const shown =
      typeof value === "object"
        ? Object.entries(value)
            .map(([key, one]) => `${key} ${one.toLocaleString("en")}`)
            .join("  ")
        : value.toLocaleString("en");
    return `${name.padEnd(32)}${shown}\n`;
  });
  process.stdout.write(`\n${lines.join("")}`);
}

function say(sentence: string): void {
  process.stderr.write(`${sentence}\n`);
}
