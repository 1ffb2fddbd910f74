import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { sampleRun } from "../../test/fixtures/ui/samples.ts";
import { digestOf } from "../base/bytes.ts";
import type { RunChange, RunView, VersionView } from "../protocol/run-view.ts";
import { openFeed, withChange, withVersion, type Feed } from "./feed.ts";

const run = sampleRun(5);
const [, , third, fourth, fifth] = run.versions as [VersionView, VersionView, VersionView, VersionView, VersionView];
const until = (version: VersionView): RunView => ({ ...run, versions: run.versions.slice(0, version.version + 1) });
const changeTo = (head: VersionView): RunChange => ({
  run: run.run,
  round: 9,
  phase: "merging",
  connected: 3,
  head,
});

describe("withVersion()", () => {
  test("adds the next version, and takes a repeated one once", () => {
    expect(withVersion(until(third), fourth)).toEqual(until(fourth));
    expect(withVersion(until(third), third)).toEqual(until(third));
  });

  test("does not go on where a version was missed, is older, or is not what it was", () => {
    expect(withVersion(until(third), fifth)).toBeNull();
    expect(withVersion(until(fifth), fourth)).toBeNull();
    expect(withVersion(until(third), { ...third, digest: fourth.digest })).toBeNull();
  });
});

test("withChange() keeps the record and changes what it is told, and does not go on with another run", () => {
  const { charter, parameters } = run;
  const { versions } = until(fourth);
  expect(withChange(until(third), changeTo(fourth))).toEqual({
    run: run.run,
    charter,
    parameters,
    round: 9,
    phase: "merging",
    connected: 3,
    versions,
  });
  expect(withChange(until(third), { ...changeTo(fourth), run: digestOf(new Uint8Array()) })).toBeNull();
});

/** An event source as a browser has it, at which `tell` is what the relay says. */
class Source extends EventTarget {
  static readonly CLOSED = 2;
  static readonly opened: Source[] = [];
  readyState = 1;
  constructor() {
    super();
    Source.opened.push(this);
  }
  tell(type: "change" | "version", value: RunChange | VersionView): void {
    if (this.readyState !== Source.CLOSED) {
      this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(value) }));
    }
  }
  refuse(): void {
    if (this.readyState !== Source.CLOSED) {
      this.close();
      this.dispatchEvent(new Event("error"));
    }
  }
  close(): void {
    this.readyState = Source.CLOSED;
  }
}

describe("openFeed()", () => {
  let feed: Feed;
  let served: RunView;
  let loads: number;
  const shown: RunView[] = [];
  const source = (): Source => Source.opened.at(-1) as Source;
  const heads = (): unknown[] => shown.map(({ versions }) => versions.at(-1)?.version);

  beforeEach(async () => {
    vi.useFakeTimers();
    vi.stubGlobal("EventSource", Source);
    vi.stubGlobal("fetch", () => {
      loads += 1;
      return Promise.resolve(Response.json(served));
    });
    shown.length = 0;
    loads = 0;
    served = until(third);
    feed = openFeed("https://relay", { run: (next) => shown.push(next), state: () => undefined });
    await vi.advanceTimersByTimeAsync(0);
  });
  afterEach(() => {
    feed.close();
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });

  test("asks for the record once, and goes on with what the relay tells", async () => {
    source().tell("change", changeTo(third));
    source().tell("version", fourth);
    source().tell("change", changeTo(fourth));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(heads()).toEqual([2, 2, 3, 3]);
    expect(shown.at(-1)).toEqual({ ...until(fourth), round: 9, phase: "merging", connected: 3 });
    expect([loads, Source.opened.at(-1)?.readyState]).toEqual([1, 1]);
  });

  test("asks for the whole record again after a version was missed, before the first event or while it was away", async () => {
    served = until(fifth);
    source().tell("change", changeTo(fifth));
    source().tell("change", changeTo(fifth));
    await vi.advanceTimersByTimeAsync(1_000);
    source().tell("change", changeTo(fifth));
    expect(heads()).toEqual([2, 4, 4]);
    expect(shown.at(-1)?.versions).toEqual(until(fifth).versions);
    expect(loads).toBe(2);
  });

  test("shows the run that a relay serves instead under the open page", async () => {
    served = { ...until(third), run: digestOf(new Uint8Array()) };
    source().tell("change", { ...changeTo(third), run: served.run });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(shown.at(-1)).toEqual(served);
  });

  test("asks for the record ever more seldom while it does not go together with the events, or there are none", async () => {
    for (const fail of [() => source().tell("change", changeTo(fifth)), () => source().refuse()]) {
      loads = 0;
      for (let second = 0; second < 120; second += 1) {
        fail();
        await vi.advanceTimersByTimeAsync(1_000);
      }
      expect(loads).toBeGreaterThan(3);
      expect(loads).toBeLessThan(9);
    }
  });
});
