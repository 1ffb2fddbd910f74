/** What `npm run admin` prints of a relay and its contributors, for people at a terminal. Pure. */
import type { ContributorId } from "../base/bytes.ts";
import type { Tally } from "./tally.ts";
import { bytes } from "./log.ts";
import type { Status } from "./operations.ts";

export function statusLines(status: Status, nowMs: number): string[] {
  const { head, sessions, lanes, banned } = status;
  const doing = (work: string | null): number => sessions.filter((session) => session.work === work).length;
  const flags = [status.paused ? "paused" : "", status.draining ? "draining" : ""].filter((flag) => flag !== "");
  const version =
    head === null
      ? "none"
      : `${head.version}, evaluation loss ${head.evalLoss.toFixed(4)}, ${ago(nowMs - head.timeMs)} ago`;
  const one = status.process === null ? "does not run" : `runs as process ${status.process}`;
  const present = `${sessions.length}, of these ${doing("train")} train, ${doing("validate")} validate (${lanes.rtc} rtc, ${lanes.ws} ws)`;
  return [
    `relay       ${status.leader === null ? one : `led by ${status.leader}`}${flags.map((flag) => `, ${flag}`).join("")}`,
    `run         ${status.run} "${printable(status.name)}"`,
    `model       ${status.parameters.toLocaleString("en")} parameters`,
    `version     ${version}`,
    `round       ${status.round}, ${status.phase}`,
    `sessions    ${present}`,
    `banned      ${banned.length}`,
    `ledger      ${status.entries} entries`,
    `blobs       ${status.blobs}, ${bytes(status.blobBytes)}`,
  ];
}

/** One line for each device, whoever contributed last at the end. `working` says what those who are here do. */
export function contributorLines(
  tallies: readonly Tally[],
  working: ReadonlyMap<ContributorId, string>,
  nowMs: number,
): string[] {
  const head = `${"device".padEnd(64)}  accepted  refused  judged        up         last  now`;
  const last = (tally: Tally): number => tally.lastMs ?? tally.introducedMs;
  const lines = tallies
    .toSorted((a, b) => last(a) - last(b))
    .map((tally) => {
      const cells = [
        tally.contributor,
        String(tally.accepted).padStart(10),
        String(tally.refused).padStart(9),
        String(tally.judged).padStart(8),
        bytes(tally.bytesUp).padStart(10),
        (tally.lastMs === null ? "never" : `${ago(nowMs - tally.lastMs)} ago`).padStart(13),
      ];
      const now = tally.banned === null ? (working.get(tally.contributor) ?? "away") : `banned: ${tally.banned}`;
      return `${cells.join("")}  ${printable(now)}  ${printable(tally.agent)}`;
    });
  return [head, ...lines];
}

/** Others' texts, without what could command a terminal. */
function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, "?");
}

/** 90,000 → "2 min". */
function ago(ms: number): string {
  const s = Math.max(0, ms / 1_000);
  if (s < 100) {
    return `${Math.round(s)} s`;
  }
  if (s < 6_000) {
    return `${Math.round(s / 60)} min`;
  }
  return s < 172_800 ? `${Math.round(s / 3_600)} h` : `${Math.round(s / 86_400)} days`;
}
