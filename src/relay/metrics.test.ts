import { get } from "node:http";
import { afterEach, expect, test } from "vitest";
import { HeddleError } from "../base/assert.ts";
import type { Digest } from "../base/bytes.ts";
import type { SignedEntry } from "../protocol/chain.ts";
import type { LedgerEvent } from "../protocol/ledger.ts";
import { exampleEvents } from "../protocol/examples.ts";
import type { RunView } from "../protocol/run-view.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { listen, shut } from "./http.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { createOperatorFace, operationsIn, whyUnready, type Standing } from "./operator-face.ts";
import { PROCESS_HEADER } from "./operator-socket.ts";

const open: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) {
    await close();
  }
});

function metrics(): Metrics {
  const made = createMetrics();
  open.push(() => made.close());
  return made;
}

function entry(event: LedgerEvent, timeMs: number): SignedEntry {
  return { sequence: 0, timeMs, previous: "" as Digest, event, signature: new Uint8Array(1) };
}

const eventOf = <K extends LedgerEvent["type"]>(type: K): LedgerEvent =>
  exampleEvents.find((event) => event.type === type) as LedgerEvent;

async function valueOf(made: Metrics, series: string): Promise<number | undefined> {
  const line = (await made.text()).split("\n").find((each) => each.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

test("createMetrics() counts contributions by verdict, whether the ledger or the door refused them", async () => {
  const made = metrics();
  const judged = { ...eventOf("judged"), verdict: { type: "accepted" } } as LedgerEvent;
  made.entry(entry(judged, 1));
  made.entry(entry(judged, 2));
  made.entry(entry({ ...judged, verdict: { type: "refused", reason: "harmful" } } as LedgerEvent, 3));
  made.fact({ type: "rejected", reason: "late" });
  expect(await valueOf(made, 'heddle_contributions_total{verdict="accepted"}')).toBe(2);
  expect(await valueOf(made, 'heddle_contributions_total{verdict="harmful"}')).toBe(1);
  expect(await valueOf(made, 'heddle_contributions_total{verdict="late"}')).toBe(1);
});

test("createMetrics() times the phases of rounds that it saw begin, and no others", async () => {
  const made = metrics();
  const count = (phase: string): Promise<number | undefined> =>
    valueOf(made, `heddle_round_phase_seconds_count{phase="${phase}"}`);
  made.entry(entry(eventOf("merged"), 500)); // of a round from before
  expect(await count("merging")).toBeUndefined();
  made.entry(entry(eventOf("opened"), 1_000));
  made.entry(entry(eventOf("closed"), 3_000));
  made.entry(entry(eventOf("judged"), 3_500));
  made.entry(entry(eventOf("merged"), 4_500));
  made.entry(entry(eventOf("opened"), 5_000));
  made.entry(entry(eventOf("closed"), 6_000));
  made.entry(entry(eventOf("skipped"), 6_000));
  const sum = (phase: string): Promise<number | undefined> =>
    valueOf(made, `heddle_round_phase_seconds_sum{phase="${phase}"}`);
  expect([await sum("training"), await sum("judging"), await sum("merging")]).toEqual([3, 0.5, 1]);
  expect([await count("training"), await count("judging"), await count("merging")]).toEqual([2, 2, 1]);
  expect(await valueOf(made, 'heddle_rounds_total{outcome="skipped"}')).toBe(1);
});

test("createMetrics() reads the host when it is asked, and says nothing of a run that is not loaded", async () => {
  const made = metrics();
  expect(await valueOf(made, "heddle_round")).toBeUndefined();
  let told = 0;
  made.watch({
    view: () => ({ round: 7, versions: [{ version: 3, timeMs: 60_000, evalLoss: 2.5 }] }) as unknown as RunView,
    operatorView: () => ({ draining: false, paused: true, banned: [], sessions: [] }),
    lanes: () => ({ memory: 0, ws: 2, rtc: 1 }),
    countTraffic: () => {
      told += 1;
      made.fact({ type: "carried", lane: "rtc", up: 10, down: 4 });
    },
  });
  const text = await made.text();
  expect(told).toBe(1);
  for (const line of [
    "heddle_round 7",
    "heddle_version 3",
    "heddle_eval_loss 2.5",
    "heddle_paused 1",
    "heddle_banned_devices 0",
    "heddle_last_version_timestamp_seconds 60",
    'heddle_sessions{lane="ws"} 2',
    'heddle_sessions{lane="rtc"} 1',
    'heddle_bytes_total{direction="up",lane="rtc"} 10',
  ]) {
    expect(text.split("\n")).toContain(line);
  }
  expect(text).toContain("nodejs_eventloop_lag_p99_seconds");
  expect(text).toContain("process_resident_memory_bytes");
});

test("watchStore() counts what fails by the store's part, and passes results and failures on", async () => {
  const made = metrics();
  const inner = createMemoryStore();
  const backup = async (): Promise<void> => undefined;
  const failing: Store & { readonly backup: typeof backup } = {
    ...inner,
    log: Object.create(inner.log) as Store["log"], // its methods are a prototype's, as a class's are
    backup,
    blobs: { ...inner.blobs, put: async () => Promise.reject(new HeddleError("store", "the disk is full")) },
  };
  const store = made.watchStore(failing);
  expect(await store.log.append(0, [Uint8Array.of(1)])).toBe(true);
  expect(await store.log.length()).toBe(1);
  expect(await store.log.read(0, 1)).toEqual([Uint8Array.of(1)]);
  expect(store.backup).toBe(backup);
  await expect(store.blobs.put(Uint8Array.of(1))).rejects.toThrow("the disk is full");
  expect(await valueOf(made, 'heddle_store_errors_total{part="blobs"}')).toBe(1);
  expect(await valueOf(made, 'heddle_store_errors_total{part="log"}')).toBe(0);
  expect(await valueOf(made, "heddle_ledger_write_seconds_count")).toBe(1);
});

test("createOperatorFace() is healthy at once, ready when the run is loaded and its store answers", async () => {
  const made = metrics();
  let standing: Standing = { type: "loading" };
  const unready = (): Promise<string | null> => whyUnready(standing);
  const server = createOperatorFace({ metrics: made, unready, operations: () => operationsIn(standing) });
  const port = await listen(server, 0, "127.0.0.1");
  open.push(() => shut(server));
  const ask = async (path: string, method = "GET"): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
    return `${response.status} ${(await response.text()).trim()}`;
  };
  expect(await ask("/healthz")).toBe("200 ok");
  const { headers } = await fetch(`http://127.0.0.1:${port}/healthz`);
  expect(headers.get(PROCESS_HEADER)).toMatch(new RegExp(`^process ${process.pid}, started 20`));
  expect(await ask("/readyz")).toBe("503 The run is being loaded");
  expect(await ask("/status")).toContain("Cannot operate: the run is being loaded");
  standing = { type: "waiting", leader: "process 1 on a" };
  made.lead(false);
  expect(await ask("/readyz")).toBe("503 This relay waits for process 1 on a, which leads the run");
  expect(await ask("/ledger")).toMatch(
    /^400 .*Cannot operate: this relay does not lead the run, and has not heard the one that does, process 1 on a"/,
  );
  expect(await valueOf(made, "heddle_leading")).toBe(0);
  made.lead(true);
  expect(await valueOf(made, "heddle_leading")).toBe(1);
  const store = createMemoryStore();
  const digest = await store.blobs.put(Uint8Array.of(1, 2));
  standing = { type: "serving", store, host: { head: () => ({ digest }) as never }, operations: {} as never };
  expect(await ask("/readyz")).toBe("200 ready");
  await store.blobs.delete(digest);
  expect(await ask("/readyz")).toBe(`503 The shared base ${digest} is missing from the store`);
  await store.close();
  expect(await ask("/readyz")).toBe("503 Cannot use the store: it is closed");
  expect(await ask("/metrics")).toMatch(/^200 # HELP/);
  expect(await ask("/metrics", "POST")).toBe("405 Only GET is understood here");
  expect(await ask("/admin")).toBe("404 There are /metrics, /healthz and /readyz here");
});

test("createOperatorFace() answers a request line that is no address", async () => {
  const server = createOperatorFace({ metrics: metrics(), unready: async () => null });
  const port = await listen(server, 0, "127.0.0.1");
  open.push(() => shut(server));
  const status = await new Promise((settle) => {
    get({ host: "127.0.0.1", port, path: "//%zz?%00" }, (response) => settle(response.statusCode));
  });
  expect(status).toBe(404);
});
