/** Rates of the simulated network; the faults have their tests in `test/sim.test.ts`. */
import { describe, expect, test } from "vitest";
import { digestOf, type Bytes } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { SMALL_BYTES_MAX, type Link } from "../net/link.ts";
import { createMemoryDisk } from "../store/memory.ts";
import { createVirtualClock } from "./clock.ts";
import { createNetwork, type NetworkOptions, type Way } from "./network.ts";
import { createProcess, type Process } from "./process.ts";

const FAULTLESS = { delayMsMax: 0, breakShare: 0, duplicateShare: 0, failShare: 0 };
const RATES = { upBytesPerS: 1_000, downBytesPerS: 10_000 };
const BLOB = new Uint8Array(20_000).fill(7) as Bytes;

/** One contributor and one relay; when and what arrived at either. */
async function stage(options: NetworkOptions) {
  const clock = createVirtualClock();
  const make = (name: string): Process =>
    createProcess({ name, clock, disk: createMemoryDisk(), rng: createRng(name), writeMsMax: 0 });
  const [relay, contributor] = [make("relay"), make("contributor")];
  const crossings: (readonly [Way, string, number])[] = [];
  const network = createNetwork(clock, createRng("network"), FAULTLESS, {
    onCrossing: ({ way, blob, bytes }) => crossings.push([way, blob === null ? "message" : "blob", bytes]),
    ...options,
  });
  const arrived: (readonly [atMs: number, bytes: number])[] = [];
  let theirs: Link | undefined;
  const ear = { message: (bytes: Bytes) => void arrived.push([clock.nowMs(), bytes.length]), closed: () => undefined };
  network.listener = {
    process: relay,
    attach: (link) => {
      theirs = link;
      return ear;
    },
    blob: async () => BLOB,
  };
  const dialled = network.dial(contributor, () => ear, {});
  await clock.run(0, () => false);
  const mine = await dialled;
  const run = async (): Promise<void> => void (await clock.run(1e9, () => false));
  return { clock, network, contributor, mine, theirs: theirs as Link, arrived, crossings, run };
}

describe("createNetwork()", () => {
  test("without rates everything arrives at once", async () => {
    const { mine, arrived, run } = await stage({});
    mine.send(new Uint8Array(250_000));
    mine.send(new Uint8Array(10));
    await run();
    expect(arrived.map(([atMs]) => atMs)).toEqual([0, 0]);
  });

  test("a line carries what its rate says, each way, large messages one after the other", async () => {
    const { mine, theirs, arrived, run } = await stage({ ratesOf: () => RATES });
    mine.send(new Uint8Array(100_000));
    mine.send(new Uint8Array(70_000));
    theirs.send(new Uint8Array(100_000));
    await run();
    expect(arrived).toEqual([
      [10_000, 100_000],
      [100_000, 100_000],
      [170_000, 70_000],
    ]);
  });

  test("what fits one frame goes between the frames of what is large, and takes their time", async () => {
    const { mine, arrived, run } = await stage({ ratesOf: () => RATES });
    mine.send(new Uint8Array(100_000));
    mine.send(new Uint8Array(500));
    mine.send(new Uint8Array(SMALL_BYTES_MAX + 1));
    await run();
    expect(arrived.map(([atMs]) => atMs)).toEqual([500, 100_000, 100_500 + SMALL_BYTES_MAX + 1]);
    expect(arrived.map(([, bytes]) => bytes)).toEqual([500, 100_000, SMALL_BYTES_MAX + 1]);
  });

  test("messages and blobs weigh what they are said to, and every crossing is told", async () => {
    const request = { upBytes: 200, downBytes: 300 };
    const weigh = (bytes: Bytes, what: string): number => bytes.length + (what === "message" ? 16 : 0);
    const { clock, network, contributor, mine, crossings, run } = await stage({ ratesOf: () => RATES, request, weigh });
    const begunMs = clock.nowMs();
    mine.send(new Uint8Array(84));
    let takenMs = 0;
    void network.fetchBlob(contributor, digestOf(BLOB), BLOB.length).then(() => {
      takenMs = clock.nowMs() - begunMs;
    });
    await run();
    expect(crossings).toEqual([
      ["up", "message", 100],
      ["up", "blob", 200],
      ["down", "blob", 20_300],
    ]);
    expect(takenMs).toBe(100 + 200 + 2_030); // the request waits for the message
  });

  test("small messages take their turns among each other, and the end of a link comes after them", async () => {
    const { mine, arrived, run } = await stage({ ratesOf: () => RATES });
    mine.send(new Uint8Array(500));
    mine.send(new Uint8Array(100_000));
    mine.send(new Uint8Array(700));
    mine.close("done");
    await run();
    expect(arrived).toEqual([
      [500, 500],
      [1_200, 700],
    ]);
  });

  test("a rate of nothing is a mistake of the caller", async () => {
    const { mine } = await stage({ ratesOf: () => ({ ...RATES, upBytesPerS: 0 }) });
    expect(() => mine.send(new Uint8Array(1))).toThrow("more than 0");
  });
});
