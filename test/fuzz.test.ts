import { expect, test } from "vitest";
import { exampleContributorMessages } from "../src/protocol/examples.ts";
import { decodeContributorMessage, encodeMessage } from "../src/protocol/codec.ts";
import { BUSES } from "./fuzz/buses.ts";
import { fuzz, outcomeOf, type Target } from "./fuzz/fuzz.ts";
import { PEERS } from "./fuzz/peers.ts";
import { READERS } from "./fuzz/readers.ts";
import { SESSIONS } from "./fuzz/sessions.ts";

const SEED = 7;

test.each([...READERS, ...PEERS, ...BUSES, ...SESSIONS])(
  "$name: malformed input is taken or refused with a reason",
  async (target) => {
    const report = await fuzz(target, { seed: SEED, inputs: target.inputsInTest });
    expect(report.failure).toBeNull();
    expect(report.inputs).toBe(target.inputsInTest);
    expect(report.outcomes.size).toBeGreaterThan(1);
  },
);

/** Reads contributors' messages, with a fault where one says that it is ready for a version that no example names. */
function planted(fault: () => string): Target {
  const open: Target["open"] = async () => ({
    corpus: exampleContributorMessages.map(encodeMessage),
    feed: (input) => {
      const read = decodeContributorMessage(input);
      const rare = read.ok && read.value.type === "ready" && read.value.version !== 70_000;
      return rare ? fault() : outcomeOf(read);
    },
  });
  return { name: "planted", inputs: 0, inputsInTest: 0, open };
}

const kept: Uint8Array[] = [];
test.each([
  ["is thrown", "Planted", () => lose()],
  ["refuses without a reason", "without a reason", () => ""],
  ["is a promise that nobody looks at", "nobody looked: Error: Planted", () => forget()],
  ["keeps memory", "memory grew", () => `kept ${kept.push(new Uint8Array(9_000_000))}`.slice(0, 4)],
])("fuzz() finds a fault that %s, and says how to see it again", async (_, sentence, fault) => {
  const target = planted(fault);
  const { failure } = await fuzz(target, { seed: SEED, inputs: 4_000 });
  kept.length = 0;
  expect(failure).toContain(sentence);
  expect(failure).toContain(`seed ${SEED}`);
  const [, number, hex] = /input (\d+) of seed[^]*bytes: ([0-9a-f]+)/.exec(failure ?? "") ?? [];
  if (number !== undefined && hex !== undefined) {
    const again = await fuzz(target, { seed: SEED, inputs: 1, from: Number(number) });
    expect(again.failure).toContain(hex);
  }
});

function lose(): never {
  throw new TypeError("Planted");
}

function forget(): string {
  void Promise.reject(new Error("Planted"));
  return "accepted";
}
