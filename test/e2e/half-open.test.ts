/**
 * A process that is stopped but not dead: its connections stay open, its kernel answers for it, and nobody is behind them. The
 * other side has to notice by itself, on both lanes, and go on when the process does.
 */
import process from "node:process";
import { afterEach, expect, test } from "vitest";
import { DEAD_MS } from "../../src/protocol/limits.ts";
import type { RunView } from "../../src/protocol/run-view.ts";
import { startContributor, startRelay, temporaryFolder, type PrintedEvent, type Running } from "./processes.ts";

/** What the machine's own slowness may add. */
const SLACK_MS = 5_000;

const running: Running[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop("SIGKILL")));
});

test("relay and contributor each notice within 15 s that the other is stopped, and find each other again", async () => {
  using folder = temporaryFolder();
  const relay = await startRelay({ dir: folder.path, args: ["--no-contributor"] });
  running.push(relay);
  const contributor = startContributor(relay.origin, folder.path, ["--threads", "1"]);
  running.push(contributor);
  const connected = async (): Promise<number> =>
    ((await (await fetch(`${relay.origin}/api/run`)).json()) as RunView).connected;
  const later = (fits: (event: PrintedEvent) => boolean, timeoutMs: number): Promise<PrintedEvent> => {
    const seen = contributor.events.length;
    return contributor.waitFor((event) => contributor.events.indexOf(event) >= seen && fits(event), timeoutMs);
  };
  // The second link may open before the relay has said welcome.
  await contributor.waitFor(({ lane, status }) => lane === "rtc" && status === "training");

  process.kill(relay.pid, "SIGSTOP");
  const alone = await later(({ status }) => status === "connecting", DEAD_MS + SLACK_MS);
  expect(alone["sentence"]).toMatch(/silent/);
  const back = later((event) => event["lane"] === "rtc", 60_000);
  process.kill(relay.pid, "SIGCONT");
  await back;
  await expect.poll(connected, { timeout: 5_000 }).toBe(1);

  process.kill(contributor.pid, "SIGSTOP");
  await expect.poll(connected, { timeout: DEAD_MS + SLACK_MS, interval: 200 }).toBe(0);
  const again = later(({ status }) => status === "training", 60_000);
  process.kill(contributor.pid, "SIGCONT");
  await again;
});
