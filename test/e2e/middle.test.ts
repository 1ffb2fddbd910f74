/**
 * Somebody in the middle of the first link who wants to end the second one himself: he puts the DTLS fingerprint of a
 * certificate of his own into the offer or into the answer. Both ends are the production code with real connections; only
 * the first link is memory, where he sits.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Bytes } from "../../src/base/bytes.ts";
import { Lanes } from "../../src/contributor/lanes.ts";
import { createState, type ContributorEvent } from "../../src/contributor/state.ts";
import { keyOf, started, verify } from "../../src/coordinator/rehearsal.fixture.ts";
import { createMemoryPair } from "../../src/net/memory.ts";
import { createRtcAnswerer, dialRtcNode, type RtcAnswerer } from "../../src/net/rtc-node.ts";
import { decodeContributorMessage, decodeRelayMessage, encodeMessage } from "../../src/protocol/codec.ts";
import { PROTOCOL_VERSION } from "../../src/protocol/limits.ts";
import type { Message, RelayMessage } from "../../src/protocol/messages.ts";

let answerer: RtcAnswerer;
beforeAll(async () => {
  answerer = await createRtcAnswerer({ addresses: ["127.0.0.1"] });
});
afterAll(() => answerer.close("The test is over"));

type Change = (sdp: string) => string;
const honest: Change = (sdp) => sdp;
const OWN_FINGERPRINT = Array.from({ length: 32 }, () => "AB").join(":");
const swap: Change = (sdp) => sdp.replace(/^a=fingerprint:.*$/gm, `a=fingerprint:sha-256 ${OWN_FINGERPRINT}`);

/** Opens a session and offers a second link in it; says how that ended for the contributor, and what the relay noted. */
async function offerThrough(change: { readonly offer: Change; readonly answer: Change }): Promise<{
  readonly event: ContributorEvent;
  readonly log: readonly string[];
  readonly answers: number;
}> {
  let answers = 0;
  const world = await started({
    answerRtc: (sdp, attach) => {
      answers += 1;
      return answerer.answer(sdp, attach);
    },
  });
  const key = keyOf("ada");
  const identity = { publicKey: key.publicKey, agent: "test", engine: "twin", device: "test" } as const;
  const state = {
    ...createState({ ...identity, engineSentence: "", privateData: false, run: null }, true),
    dial: 1,
    rtc: "opening",
  } as const;
  const events: ContributorEvent[] = [];
  const wakers: (() => void)[] = [];
  const next = async <T>(find: (event: ContributorEvent) => T | undefined): Promise<T> => {
    for (;;) {
      const found = events.map(find).find((one) => one !== undefined);
      if (found !== undefined) {
        return found;
      }
      await new Promise<void>((resolve) => wakers.push(resolve));
    }
  };
  const received = <K extends RelayMessage["type"]>(type: K): Promise<Extract<RelayMessage, { type: K }>> =>
    next((event) =>
      event.type === "received" && event.message.type === type
        ? (event.message as Extract<RelayMessage, { type: K }>)
        : undefined,
    );
  const passOn = (bytes: Bytes, message: Message | undefined): Bytes =>
    message?.type === "rtc" ? encodeMessage({ ...message, sdp: change[message.kind](message.sdp) }) : bytes;
  const lanes = new Lanes({
    key,
    verify,
    state: () => state,
    dispatch: (event) => {
      events.push(event);
      wakers.splice(0).forEach((wake) => wake());
    },
    openRtc: (options) => dialRtcNode({ ...options, timeoutMs: 30_000 }),
    dial: async (attach) =>
      createMemoryPair({
        attachA: (link) => {
          const handlers = attach(link);
          const message = (bytes: Bytes): void => {
            const read = decodeRelayMessage(bytes);
            handlers.message(passOn(bytes, read.ok ? read.value : undefined));
          };
          return { ...handlers, message };
        },
        attachB: (link) => {
          const handlers = world.host.attach(link);
          const message = (bytes: Bytes): void => {
            const read = decodeContributorMessage(bytes);
            handlers.message(passOn(bytes, read.ok ? read.value : undefined));
          };
          return { ...handlers, message };
        },
      }).a,
  });
  await lanes.dial(1);
  lanes.send({
    type: "hello",
    protocol: PROTOCOL_VERSION,
    nonce: new Uint8Array(32),
    ...identity,
    privateData: false,
  });
  await lanes.prove({ ...(await received("challenge")), type: "prove", dial: 1 });
  await received("welcome");
  await lanes.openRtc(1);
  const event = await next((one) => (one.type === "rtcOpened" || one.type === "rtcEnded" ? one : undefined));
  lanes.hangUp("The test is over");
  await world.host.close();
  return { event, log: world.logged, answers };
}

describe("a second link", () => {
  test("opens where both descriptions arrive as they were signed", async () => {
    expect((await offerThrough({ offer: honest, answer: honest })).event).toEqual({ type: "rtcOpened" });
  });

  test("is refused by the relay where the offer's fingerprint was swapped, and both ends say so", async () => {
    const { event, log, answers } = await offerThrough({ offer: swap, answer: honest });
    expect(event).toMatchObject({ type: "rtcEnded", reason: expect.stringMatching(/not signed/) });
    expect(log.join("\n")).toMatch(/not the one that the device has signed/);
    expect(answers).toBe(0);
  });

  test("is refused by the contributor where the answer's fingerprint was swapped", async () => {
    const { event } = await offerThrough({ offer: honest, answer: swap });
    expect(event).toMatchObject({
      type: "rtcEnded",
      reason: expect.stringMatching(/not the one that the relay has signed/),
    });
  });
});
