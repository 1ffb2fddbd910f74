import { describe, expect, test } from "vitest";
import { digestOf, type Bytes } from "../base/bytes.ts";
import { verifySignature } from "../net/device-key.ts";
import { contributionIdOf, encodeHeader } from "../protocol/codec.ts";
import { countingBytes, exampleHeader } from "../protocol/examples.ts";
import { createMemoryStore } from "../store/memory.ts";
import { entriesOf } from "../store/store.ts";
import { checkLedger as checkWith, type CheckedLedger } from "./check.ts";
import { contributor, entries, EVENTS, started, streamOf } from "./ledger.fixture.ts";

const checkLedger = (all: AsyncIterable<Bytes>): Promise<CheckedLedger> => checkWith(all, verifySignature);

describe("checkLedger()", () => {
  test("gives the key, the last digest and the state of a ledger that holds together", async () => {
    const all = await entries(EVENTS);
    const store = createMemoryStore();
    await store.log.append(0, all);
    const checked = await checkLedger(entriesOf(store.log));
    expect(checked).toMatchObject({ entries: 7, digest: digestOf(all[6] as Bytes) });
    expect(checked.durable).toMatchObject({ round: 2, paused: true, banned: new Map([[contributor, "Sends noise"]]) });
  });

  test("finds a changed byte, a missing entry, another's signature and an event that makes no sense", async () => {
    const all = await entries(EVENTS);
    const changed = all.map((bytes) => bytes.slice());
    const last = changed.at(-1) as Bytes;
    last[last.length - 1] = (last.at(-1) ?? 0) ^ 1;
    await expect(checkLedger(streamOf(changed))).rejects.toMatchObject({ code: "integrity" });
    await expect(checkLedger(streamOf(all.toSpliced(3, 1)))).rejects.toThrow("does not continue the one before");
    const stranger = { ...started, relay: countingBytes(32, 9) };
    await expect(checkLedger(streamOf(await entries([stranger])))).rejects.toThrow(
      "entry 0: its signature is not that of the relay",
    );
    const twice = await entries([...EVENTS, { type: "paused" }]);
    await expect(checkLedger(streamOf(twice))).rejects.toThrow(
      "entry 7: Cannot apply event: the run is paused already",
    );
    await expect(checkLedger(streamOf([]))).rejects.toThrow("it has no entries");
  });

  test("finds a contribution that a relay has made up for a device nobody introduced", async () => {
    const header = encodeHeader({ ...exampleHeader, round: 1, baseVersion: 0 });
    const contributed = { type: "contributed", contribution: contributionIdOf(header), header } as const;
    const all = await entries([
      started,
      { type: "opened", round: 1, baseVersion: 0, seed: 5 },
      { ...contributed, signature: new Uint8Array(64), norm: 1, wireBytes: 800 },
    ]);
    await expect(checkLedger(streamOf(all))).rejects.toThrow(
      `entry 2: device ${exampleHeader.contributor} contributes and was never introduced`,
    );
  });
});
