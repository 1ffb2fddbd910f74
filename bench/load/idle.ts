/** What sessions cost that only stay: handshake, heartbeat, no work. Read from the relay's own metrics after a while of quiet. */
import { setTimeout as sleep } from "node:timers/promises";
import { assert } from "../../src/base/assert.ts";
import { median } from "../../src/base/statistics.ts";
import type { Outcome } from "./outcome.ts";
import { startMeasured } from "./relay-process.ts";
import { openSession, type Session } from "./session.ts";

const QUIET_MS = 20_000;
const DIALS_AT_ONCE = 20;
const CHARTER = {
  model: { channels: 32, layers: 1, heads: 2, kvHeads: 1, hidden: 64, time: 32 },
  inner: { batch: 4 },
};

/** All sessions are of this process, so that times to the welcome are those of a rush on one machine. */
export async function measureIdle(count: number): Promise<Outcome> {
  await using relay = await startMeasured(CHARTER);
  const url = relay.origin.replace("http", "ws");
  let lost: string | null = null;
  const onLost = (reason: string): void => {
    lost ??= reason;
  };
  const sessions: Session[] = [];
  for (let from = 0; from < count; from += DIALS_AT_ONCE) {
    const rush = Array.from({ length: Math.min(DIALS_AT_ONCE, count - from) }, () => openSession({ url, onLost }));
    sessions.push(...(await Promise.all(rush)));
  }
  sessions.forEach((session) => session.send({ type: "ready", version: session.head.version }));
  const before = await relay.metrics();
  await sleep(QUIET_MS);
  const after = await relay.metrics();
  assert(lost === null, `Cannot measure: a session was lost: ${String(lost)}`);
  assert(after("heddle_sessions", 'lane="ws"') === count, "Cannot measure: not all sessions are open");
  const cpu = "process_cpu_seconds_total";
  sessions.forEach((session) => session.close());
  return {
    sessions: count,
    residentMB: Math.round(after("process_resident_memory_bytes") / 1e5) / 10,
    processorPercent: Math.round(((after(cpu) - before(cpu)) * 1e6) / QUIET_MS) / 10,
    eventLoopP99Ms: Math.round(after("nodejs_eventloop_lag_p99_seconds") * 1e4) / 10,
    assignments: after("heddle_assignments_total", 'work="train"'),
    welcomeMedianMs: count === 0 ? 0 : Math.round(median(sessions.map(({ welcomeMs }) => welcomeMs))),
  };
}
