import { spawnSync } from "node:child_process";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { PeerConnection, type DataChannel } from "node-datachannel";
import { afterEach, describe, expect, test } from "vitest";
import { LINK_CASES, recorder, type LinkPlace, type Recorder } from "./contract.ts";
import type { Link } from "./link.ts";
import { answerRtcNode, createRtcAnswerer, dialRtcNode, type RtcAnswerer } from "./rtc-node.ts";
import { withFewCandidates, withHostCandidates, withoutCandidates } from "./sdp.ts";
import { CANDIDATES_MAX } from "../protocol/limits.ts";

const answerers: RtcAnswerer[] = [];
afterEach(async () => {
  await Promise.all(answerers.splice(0).map((answerer) => answerer.close("The test is over")));
});

async function answerer(options: Parameters<typeof createRtcAnswerer>[0] = {}): Promise<RtcAnswerer> {
  const made = await createRtcAnswerer(options);
  answerers.push(made);
  return made;
}

const place: LinkPlace = {
  connect: async ({ attachA, attachB, messageBytesMax }) => {
    const accepted = Promise.withResolvers<Link>();
    const relay = await answerer({ messageBytesMax });
    const exchange = (offer: string): Promise<string> =>
      relay.answer(offer, (link) => {
        accepted.resolve(link);
        return attachB(link);
      });
    return { a: await dialRtcNode({ exchange, attach: attachA, messageBytesMax }), b: await accepted.promise };
  },
};

describe("dialRtcNode() to createRtcAnswerer() keeps the contract", () => {
  test.each(LINK_CASES)("$name", ({ run }) => run(place));
});

test("createRtcAnswerer() serves many dials at once from one port, and none is lost", async () => {
  const relay = await answerer();
  const dials = Array.from({ length: 20 }, async (_, i) => {
    const [a, b] = [recorder(), recorder()];
    const link = await dialRtcNode({
      exchange: (offer) => relay.answer(offer, b.attach),
      attach: a.attach,
    });
    link.send(Uint8Array.of(i));
    expect((await b.next())[0]).toBe(i);
    link.close("Done");
    expect(await b.closed()).toBe("Done");
  });
  await Promise.all(dials);
});

test("createRtcAnswerer() refuses an offer that is no offer, and more than connectionsMax", async () => {
  const relay = await answerer({ connectionsMax: 1 });
  await expect(relay.answer("hello", recorder().attach)).rejects.toMatchObject({ code: "bad-input" });
  const garbage = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=setup:nothing\r\n";
  await expect(relay.answer(garbage, recorder().attach)).rejects.toMatchObject({ code: "bad-input" });
  expect(relay.connections()).toBe(0);
  const dial = (): Promise<Link> =>
    dialRtcNode({ exchange: (offer) => relay.answer(offer, recorder().attach), attach: recorder().attach });
  await dial();
  await expect(dial()).rejects.toMatchObject({ code: "unreachable" });
});

/** A bare channel that does not know frames; `closed` resolves when the other end has closed it. */
async function openRaw(relay: RtcAnswerer, end: Recorder) {
  const pc = new PeerConnection("raw", { iceServers: [] });
  const [opened, closed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  pc.onStateChange((state) => void (state === "closed" && closed.resolve()));
  pc.onLocalDescription((sdp) => {
    void relay.answer(sdp, end.attach).then((answer) => pc.setRemoteDescription(answer, "answer"));
  });
  const channel = pc.createDataChannel("raw");
  channel.onOpen(() => opened.resolve());
  channel.onClosed(() => pc.close());
  await opened.promise;
  return { pc, channel, closed: closed.promise };
}

test.each([
  ["garbage", (raw: DataChannel) => raw.sendMessageBinary(new Uint8Array(40).fill(0xee)), "got version 238"],
  ["text", (raw: DataChannel) => raw.sendMessage("hello"), "got text, need bytes"],
  ["a short frame", (raw: DataChannel) => raw.sendMessageBinary(Uint8Array.of(1)), "got 1 bytes"],
])("createRtcAnswerer() ends a link that sends %s, with a sentence", async (_, send, sentence) => {
  const end = recorder();
  const { channel, closed } = await openRaw(await answerer(), end);
  send(channel);
  expect(await end.closed()).toContain(sentence);
  channel.close();
  await closed;
});

test("createRtcAnswerer() ends a connection that opens a second channel", async () => {
  const end = recorder();
  const { pc, closed } = await openRaw(await answerer(), end);
  const second = pc.createDataChannel("second");
  expect(await end.closed()).toBe("The other end closed the link");
  second.close();
  pc.close();
  await closed;
});

test("createRtcAnswerer() tells the end of a connection that is closed without a word", async () => {
  const end = recorder();
  const relay = await answerer();
  const { pc, closed } = await openRaw(relay, end);
  pc.close();
  expect(await end.closed()).toBe("The other end closed the link");
  await closed;
});

test("createRtcAnswerer() gives up a connection that does not open in openMs", async () => {
  const relay = await answerer({ openMs: 20, addresses: ["127.0.0.1"] });
  const gone = dialRtcNode({
    exchange: async (offer) => withoutCandidates(await relay.answer(offer, recorder().attach)),
    attach: recorder().attach,
    timeoutMs: 300,
  });
  await expect(gone).rejects.toMatchObject({ code: "unreachable" });
  await expect.poll(() => relay.connections()).toBe(0);
});

test("dialRtcNode() rejects when the exchange fails or its answer cannot be used", async () => {
  const attach = recorder().attach;
  const failing = dialRtcNode({ exchange: () => Promise.reject(new Error("no signal")), attach });
  await expect(failing).rejects.toMatchObject({ code: "unreachable" });
  await expect(dialRtcNode({ exchange: async () => "v=0", attach })).rejects.toMatchObject({ code: "unreachable" });
});

test("a process that dialled and answered exits by itself once its links are closed", () => {
  const here = fileURLToPath(new URL("rtc-node.ts", import.meta.url));
  const script = `
    import { createRtcAnswerer, dialRtcNode } from ${JSON.stringify(here)};
    const answerer = await createRtcAnswerer();
    const attach = () => ({ message: () => undefined, closed: () => undefined });
    const link = await dialRtcNode({ exchange: (offer) => answerer.answer(offer, attach), attach });
    link.send(new Uint8Array(200_000));
    await answerer.close("Over");
    console.log("closed");`;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], { timeout: 30_000 });
  expect([child.status, child.stdout.toString(), child.stderr.toString()]).toEqual([0, "closed\n", ""]);
});

test("withHostCandidates() replaces candidates, and withoutCandidates() takes them out", () => {
  const sdp = "v=0\r\nm=application 9 UDP/DTLS/SCTP x\r\na=mid:0\r\na=candidate:1 1 UDP 5 10.0.0.1 7 typ host\r\n";
  expect(withoutCandidates(sdp)).toBe("v=0\r\nm=application 9 UDP/DTLS/SCTP x\r\na=mid:0\r\n");
  expect(withHostCandidates(sdp, ["192.0.2.1"], 4000)).toBe(
    "v=0\r\nm=application 9 UDP/DTLS/SCTP x\r\na=mid:0\r\n" +
      "a=candidate:1 1 UDP 2130706431 192.0.2.1 4000 typ host\r\na=end-of-candidates\r\n",
  );
});

test("answerRtcNode() opens a link to a dialling end that gathers, with the addresses of both", async () => {
  const [a, b] = [recorder(), recorder()];
  const described: string[] = [];
  const exchange = async (offerSdp: string): Promise<string> => {
    const answer = await answerRtcNode({ offerSdp, attach: b.attach });
    described.push(offerSdp, answer);
    return answer;
  };
  const link = await dialRtcNode({ exchange, attach: a.attach, gathers: true });
  link.send(Uint8Array.of(1));
  expect(await b.next()).toEqual(Uint8Array.of(1));
  link.close("Done");
  expect(await b.closed()).toBe("Done");
  expect(described.every((sdp) => sdp.includes("a=candidate:"))).toBe(true);
  await expect(answerRtcNode({ offerSdp: "hello", attach: b.attach })).rejects.toMatchObject({ code: "bad-input" });
});

test("withFewCandidates() keeps the first CANDIDATES_MAX and every other line", () => {
  const candidates = Array.from({ length: 40 }, (_, i) => `a=candidate:${i} 1 UDP 5 192.0.2.${i} 7 typ host\r\n`);
  const sdp = `v=0\r\n${candidates.join("")}a=mid:0\r\n`;
  expect(withFewCandidates(sdp)).toBe(`v=0\r\n${candidates.slice(0, CANDIDATES_MAX).join("")}a=mid:0\r\n`);
});

/** Takes a UDP port as soon as it is free. */
async function takePort(port: number): Promise<Socket> {
  for (;;) {
    const socket = createSocket("udp4").bind(port);
    const isTaken = await once(socket, "listening").then(
      () => true,
      () => false,
    );
    if (isTaken) {
      return socket;
    }
    await new Promise((settle) => setTimeout(settle, 20));
  }
}

test("createRtcAnswerer() takes another port where somebody has taken its own while nobody was connected, if none was asked for", async () => {
  const dial = (relay: RtcAnswerer): Promise<Link> =>
    dialRtcNode({ exchange: (offer) => relay.answer(offer, recorder().attach), attach: recorder().attach });
  const any = await answerer();
  const { port } = any;
  (await dial(any)).close("That is all");
  const other = await takePort(port);
  (await dial(any)).close("That is all");
  expect(any.port).not.toBe(port);
  const again = await takePort(any.port);
  const both = await Promise.all([dial(any), dial(any)]); // who come at once meet the same
  both.forEach((link) => link.close("That is all"));
  again.close();
  const asked = await answerer({ port });
  await expect(dial(asked)).rejects.toThrow("its description cannot be used");
  other.close();
  await once(other, "close");
  (await dial(asked)).close("That is all");
  expect(asked.port).toBe(port);
});
