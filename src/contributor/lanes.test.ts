import { describe, expect, test } from "vitest";
import type { Bytes } from "../base/bytes.ts";
import type { Attach, Link, LinkHandlers } from "../net/link.ts";
import { createMemoryPair } from "../net/memory.ts";
import { decodeContributorMessage, encodeMessage, rtcProof, sessionProof } from "../protocol/codec.ts";
import type { IceServer } from "../protocol/ice.ts";
import { PROTOCOL_VERSION } from "../protocol/limits.ts";
import type { ContributorMessage, RelayMessage, RtcSignal } from "../protocol/messages.ts";
import { createKeyRegistry } from "../sim/keys.ts";
import { Lanes } from "./lanes.ts";
import { createState, type ContributorEvent, type ContributorState } from "./state.ts";

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const nonce = new Uint8Array(32).fill(3);
const registry = createKeyRegistry();
const key = registry.create("contributor");
const relayKey = registry.create("relay");
const { verify } = registry;

interface Scene {
  readonly lanes: Lanes;
  readonly events: ContributorEvent[];
  readonly got: ContributorMessage[];
  readonly relayEnd: Link;
  /** The servers that each WebRTC dial was given. */
  readonly offeredWith: (readonly IceServer[])[];
  /** The relay's ends of WebRTC links, and what arrived on them. */
  readonly rtcEnds: Link[];
  readonly rtcGot: ContributorMessage[];
}

/** Lanes that have dialled and said hello to a relay that answers with what `reply` makes of a message. */
async function dialled(reply: (message: ContributorMessage, bytes: Bytes) => RelayMessage | null): Promise<Scene> {
  const events: ContributorEvent[] = [];
  const got: ContributorMessage[] = [];
  const offeredWith: (readonly IceServer[])[] = [];
  const rtcEnds: Link[] = [];
  const rtcGot: ContributorMessage[] = [];
  let relayEnd: Link | undefined;
  const identity = {
    publicKey: key.publicKey,
    agent: "test",
    engine: "twin",
    device: "none",
    privateData: false,
  } as const;
  const state = {
    ...createState({ ...identity, engineSentence: "", run: null }, true),
    dial: 1,
    rtc: "opening",
  } as const;
  const lanes = new Lanes({
    key,
    verify,
    state: () => state,
    dispatch: (event) => {
      events.push(event);
      if (event.type === "received" && event.message.type === "challenge") {
        void lanes.prove({ ...event.message, type: "prove", dial: 1 });
      }
    },
    openRtc: async ({ exchange, attach, iceServers }) => {
      offeredWith.push(iceServers);
      await exchange("offer");
      return createMemoryPair({
        attachA: attach,
        attachB: (link) => {
          rtcEnds.push(link);
          const message = (bytes: Bytes): void => {
            const read = decodeContributorMessage(bytes);
            rtcGot.push(...(read.ok ? [read.value] : []));
          };
          return { message, closed: () => {} };
        },
      }).a;
    },
    dial: async (attach) =>
      createMemoryPair({
        attachA: attach,
        attachB: (link) => {
          relayEnd = link;
          const message = (bytes: Bytes): void => {
            const read = decodeContributorMessage(bytes);
            expect(read.ok).toBe(true);
            if (read.ok) {
              got.push(read.value);
              const answer = reply(read.value, bytes);
              if (answer !== null) {
                link.send(encodeMessage(answer));
              }
            }
          };
          return { message, closed: () => {} };
        },
      }).a,
  });
  await lanes.dial(1);
  lanes.send({ type: "hello", protocol: PROTOCOL_VERSION, nonce, ...identity });
  await settle();
  return { lanes, events, got, relayEnd: relayEnd as Link, offeredWith, rtcEnds, rtcGot };
}

/** What an honest relay says; `change` is what becomes of its answer to an offer on the way. */
const relay =
  (change: (answer: RtcSignal) => RelayMessage = (answer) => answer) =>
  (message: ContributorMessage, bytes: Bytes): RelayMessage | null => {
    if (message.type === "hello") {
      const signature = relayKey.signNow("relay", sessionProof({ nonce, hello: bytes }));
      return { type: "challenge", nonce, relay: relayKey.publicKey, signature };
    }
    if (message.type === "rtc") {
      const signature = relayKey.signNow("rtc", rtcProof({ nonce, offer: message.sdp, answer: "answer" }));
      return change({ type: "rtc", kind: "answer", sdp: "answer", signature });
    }
    return null;
  };

describe("Lanes", () => {
  test("prove the device's key to a relay that proves its own, and sign an offer for that session", async () => {
    const { lanes, events, got } = await dialled(relay());
    expect(events.at(-1)).toEqual({ type: "proven", dial: 1, relay: relayKey.publicKey });
    await lanes.openRtc(1);
    expect(events.at(-1)).toEqual({ type: "rtcOpened" });
    const offer = got.at(-1) as RtcSignal;
    expect(await verify(key.publicKey, "rtc", rtcProof({ nonce, offer: "offer" }), offer.signature)).toBe(true);
  });

  test("dial with the servers that the relay named last", async () => {
    const { lanes, relayEnd, offeredWith } = await dialled(relay());
    const server = (host: string): IceServer => ({ url: `stun:${host}`, username: null, credential: null });
    await lanes.openRtc(1);
    for (const host of ["old", "new"]) {
      relayEnd.send(encodeMessage({ type: "ice", servers: [server(host)] }));
    }
    await settle();
    await lanes.openRtc(1);
    expect(offeredWith).toEqual([[], [server("new")]]);
  });

  test("answer a ping on the link by which it came", async () => {
    const { lanes, relayEnd, got, rtcGot, rtcEnds } = await dialled(relay());
    await lanes.openRtc(1);
    relayEnd.send(encodeMessage({ type: "ping" }));
    await settle();
    expect([got.at(-1), rtcGot]).toEqual([{ type: "pong" }, []]);
    rtcEnds[0]?.send(encodeMessage({ type: "ping" }));
    await settle();
    expect(rtcGot).toEqual([{ type: "pong" }]);
  });

  test("tell when the other end has taken more of what was sent, and on which lane", () => {
    const events: ContributorEvent[] = [];
    const handlers: LinkHandlers[] = [];
    const take = (attach: Attach): Promise<Link> => {
      handlers.push(attach({} as Link));
      return new Promise(() => {});
    };
    const state = (): ContributorState => null as never;
    const dispatch = (event: ContributorEvent): unknown => events.push(event);
    const lanes = new Lanes({ key, verify, state, dispatch, dial: take, openRtc: ({ attach }) => take(attach) });
    void lanes.dial(3);
    void lanes.openRtc(3);
    handlers.forEach(({ taken }) => taken?.());
    expect(events).toEqual(["ws", "rtc"].map((lane) => ({ type: "carried", dial: 3, lane })));
  });

  test("prove nothing to a relay that does not have the key it names", async () => {
    const signature = new Uint8Array(64);
    const { events, got } = await dialled(() => ({ type: "challenge", nonce, relay: relayKey.publicKey, signature }));
    expect(events.at(-1)).toMatchObject({ type: "garbled", reason: expect.stringMatching(/does not prove the key/) });
    expect(got.map(({ type }) => type)).toEqual(["hello"]);
  });

  test("prove nothing to a relay whose proof is of another session", async () => {
    const old = relayKey.signNow("relay", sessionProof({ nonce, hello: new Uint8Array(9) }));
    const { got } = await dialled(() => ({ type: "challenge", nonce, relay: relayKey.publicKey, signature: old }));
    expect(got.map(({ type }) => type)).toEqual(["hello"]);
  });

  const mallory = registry.create("mallory");
  test.each<[string, (answer: RtcSignal) => RelayMessage, RegExp]>([
    ["the answer was changed on the way", (answer) => ({ ...answer, sdp: "another" }), /the relay has signed/],
    [
      "the answer was signed by somebody else",
      (answer) => ({
        ...answer,
        signature: mallory.signNow("rtc", rtcProof({ nonce, offer: "offer", answer: "answer" })),
      }),
      /the relay has signed/,
    ],
    [
      "the answer is one to another offer",
      (answer) => ({
        ...answer,
        signature: relayKey.signNow("rtc", rtcProof({ nonce, offer: "old", answer: "answer" })),
      }),
      /the relay has signed/,
    ],
    [
      "the relay got another offer than was sent",
      () => ({ type: "refused", reason: "bad-signature", retryMs: null }),
      /has not signed/,
    ],
  ])("open no second link where %s", async (_, change, reason) => {
    const { lanes, events } = await dialled(relay(change));
    await lanes.openRtc(1);
    expect(events.at(-1)).toMatchObject({ type: "rtcEnded", reason: expect.stringMatching(reason) });
  });
});
