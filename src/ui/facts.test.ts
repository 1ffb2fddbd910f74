import { describe, expect, test } from "vitest";
import { sampleRun, sampleView } from "../../test/fixtures/ui/samples.ts";
import { consentTerms, deviceFacts, itemsOf, runFacts } from "./facts.ts";

describe("facts", () => {
  test("runFacts() tells version, size, traffic and licence, and survives a run without versions", () => {
    const text = JSON.stringify(runFacts(sampleRun(64)));
    for (const word of [
      "Round 65: contributors are training",
      "541\u00a0k parameters",
      "301\u00a0kB up",
      "Licence: Public domain",
      "nats per byte",
    ]) {
      expect(text).toContain(word);
    }
    expect(runFacts(sampleRun(0)).map(({ name }) => name)).not.toContain("Last version");
    expect(runFacts({ ...sampleRun(0), versions: [] })[0]?.value).toBe("0");
  });

  test("deviceFacts() names the engine and why, and the lane and why", () => {
    const text = JSON.stringify(deviceFacts(sampleView({ status: "training", duty: 0.5, tick: 1 })));
    for (const word of [
      "GPU, by WebGPU",
      "NVIDIA Ampere. The GPU is used: it is 9.1",
      "WebSocket",
      "WebRTC could not connect",
    ]) {
      expect(text).toContain(word);
    }
    expect(deviceFacts(null)).toHaveLength(1);
  });

  test("deviceFacts() tells bytes of other volunteers apart, where there were any or the person asked for it", () => {
    const view = sampleView({ status: "training", duty: 0.5, tick: 1 });
    const words = "With other volunteers";
    expect(deviceFacts(view).find(({ name }) => name === words)?.value).toBe(
      "4.22\u00a0MB sent, 2.11\u00a0MB received",
    );
    const peers = { ...view.peers, on: false, bytesServed: 0, bytesFetched: 0 };
    expect(JSON.stringify(deviceFacts({ ...view, peers }))).not.toContain(words);
  });

  test("consentTerms() takes the median round, so that one newcomer's download does not weigh in", () => {
    const run = sampleRun(9);
    const usual = consentTerms(run, 0.5).round;
    expect(usual?.ms).toBe(30_000);
    const versions = run.versions.map((v) => (v.version === 9 ? { ...v, bytesDown: 1e9, timeMs: v.timeMs + 1e9 } : v));
    const round = consentTerms({ ...run, versions }, 0.5).round;
    expect(round?.downBytes).toBeLessThanOrEqual((usual?.downBytes ?? 0) * 1.5);
    expect(round?.ms).toBe(30_000);
    expect(consentTerms(sampleRun(0), 0.5).round).toBeNull();
  });

  test("itemsOf() keeps order and verdicts", () => {
    const items = itemsOf(sampleView({ status: "training", duty: 1, tick: 1 }));
    expect(items.slice(0, 4).map(({ state }) => state)).toEqual(["waiting", "accepted", "accepted", "refused"]);
    expect(itemsOf(null)).toEqual([]);
  });
});
