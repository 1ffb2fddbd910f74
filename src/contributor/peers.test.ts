import { describe, expect, test } from "vitest";
import { digestOf, floatBytes, type Bytes, type Digest } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import type { Clock } from "../base/clock.ts";
import { createStop } from "../base/stop.ts";
import type { Fact } from "../coordinator/fact.ts";
import { Introductions } from "../coordinator/introductions.ts";
import type { Attach, Begun, FetchPieces, Link } from "../net/link.ts";
import { createMemoryPair } from "../net/memory.ts";
import { contributorIdOf } from "../protocol/codec.ts";
import { MEET_MS, PEER_OPEN_MS, PEER_STALL_MS, PIECE_BYTES } from "../protocol/limits.ts";
import type { ContributorMessage, RelayMessage } from "../protocol/messages.ts";
import { encodePeerMessage, peerProof } from "../protocol/peer.ts";
import { digestPieces, pieceAt } from "../protocol/pieces.ts";
import { createVirtualClock } from "../sim/clock.ts";
import { createKeyRegistry } from "../sim/keys.ts";
import { Peers, SERVED_AT_ONCE_MAX, SERVED_RATE, type PeerRtc } from "./peers.ts";

/** Three parts. */
const params = Float32Array.from({ length: 160_000 }, (_, i) => i);
const content = floatBytes(params);
const blob = digestOf(content);
/** Six parts, of which it may be known what they should be. */
const many = Float32Array.from({ length: 330_000 }, (_, i) => i);
const manyBytes = floatBytes(many);
const manyBlob = digestOf(manyBytes);
const SIX = { bytes: manyBytes.length, count: 6 };

interface Member {
  readonly peers: Peers;
  /** What it said to the relay. */
  readonly said: ContributorMessage[];
  readonly id: number;
  working: boolean;
  head: Digest | null;
  held: { readonly digest: Digest; readonly params: Float32Array<ArrayBuffer> } | null;
}

interface Joining {
  readonly on?: boolean;
  readonly holds?: Float32Array<ArrayBuffer>;
  /** Under which digest. */
  readonly as?: Digest;
  readonly fetchPieces?: FetchPieces;
  readonly duty?: number;
  /** What is at its end of a link in place of the honest one; null answers no offer. */
  readonly far?: (attach: Attach, scene: Scene) => Attach | null;
}

/** A relay that introduces, and contributors whose links are in memory. */
class Scene {
  readonly clock = createVirtualClock();
  readonly registry = createKeyRegistry();
  readonly facts: Fact[] = [];
  readonly introductions = new Introductions({
    nowMs: () => this.clock.nowMs(),
    rng: createRng("introductions"),
    checkpointBytes: (wanted) => (wanted === blob ? content.length : wanted === manyBlob ? manyBytes.length : null),
    fact: (fact) => this.facts.push(fact),
  });
  /** Changes a message on its way; null loses it. */
  twist: (message: RelayMessage | ContributorMessage) => RelayMessage | ContributorMessage | null = (message) =>
    message;
  readonly links: Link[] = [];
  /** How long each end gathers its addresses. */
  gatherMs = 0;
  readonly #waiting = new Map<string, Attach>();
  #members = 0;

  join({ on = true, holds, as = blob, fetchPieces, duty = 1, far = (attach) => attach }: Joining = {}): Member {
    this.#members += 1;
    const id = this.#members;
    const key = this.registry.create(id);
    const guest = {
      id,
      contributor: contributorIdOf(key.publicKey),
      publicKey: key.publicKey,
      send: (message: RelayMessage): void => this.#later(message, (sent) => peers.take(sent as RelayMessage)),
    };
    const said: ContributorMessage[] = [];
    const send = (message: ContributorMessage): void => {
      said.push(message);
      this.#later(message, (sent) => this.introductions.take(guest, sent as never));
    };
    const rtc: PeerRtc = {
      dial: async ({ exchange, attach }) => {
        await this.#gather();
        const attachB = this.#waiting.get(await exchange(`offer of ${id}`));
        const pair = createMemoryPair({ attachA: attach, attachB: attachB as Attach });
        this.links.push(pair.a);
        return pair.a;
      },
      answer: async ({ offerSdp, attach }) => {
        await this.#gather();
        const end = far(attach, this);
        if (end === null) {
          return new Promise(() => undefined);
        }
        this.#waiting.set(`answer of ${id} to ${offerSdp}`, end);
        return `answer of ${id} to ${offerSdp}`;
      },
    };
    const member: Omit<Member, "peers"> & { peers?: Peers } = {
      id,
      said,
      working: true,
      head: null,
      held: holds === undefined ? null : { digest: as, params: holds },
    };
    const peers = new Peers(
      {
        rtc,
        key,
        verify: this.registry.verify,
        hash: async (bytes) => digestOf(bytes),
        fetchPieces,
        clock: this.clock,
        session: () => 1,
        working: () => member.working,
        head: () => member.head,
        held: () => member.held,
        duty: () => duty,
        iceServers: () => [],
        send,
        onChange: () => undefined,
      },
      on,
    );
    peers.update();
    return Object.assign(member, { peers });
  }

  /** What becomes of a fetch, and how long it takes. */
  async fetch(member: Member, wanted = blob, size = content.length) {
    let begun: Begun | null | undefined;
    const beganMs = this.clock.nowMs();
    let tookMs = 0;
    void member.peers.fetch(wanted, size).then((got) => {
      [begun, tookMs] = [got, this.clock.nowMs() - beganMs];
    });
    await settle();
    await this.clock.run(beganMs + 600_000, () => begun !== undefined, settle);
    expect(begun).not.toBe(undefined);
    const bytes = begun?.filled === size ? begun.bytes : null;
    return { bytes, filled: begun?.filled, tookMs, sentence: member.peers.view().sentence };
  }

  async #gather(): Promise<void> {
    if (this.gatherMs > 0) {
      await new Promise<void>((resolve) => this.clock.after(this.gatherMs, resolve));
    }
  }

  #later(message: RelayMessage | ContributorMessage, take: (message: RelayMessage | ContributorMessage) => void): void {
    const sent = this.twist(message);
    if (sent !== null) {
      this.clock.after(1, () => take(sent));
    }
  }
}

describe("Peers.fetch()", () => {
  test("gets a checkpoint from another who serves it, and the relay hears what came of it", async () => {
    const scene = new Scene();
    const server = scene.join({ holds: params });
    const seeker = scene.join();
    const { bytes, tookMs } = await scene.fetch(seeker);
    expect(bytes).toEqual(content);
    expect(tookMs).toBeLessThan(100);
    await scene.clock.run(scene.clock.nowMs() + 10, () => false);
    expect(server.peers.view()).toMatchObject({ bytesServed: content.length, bytesFetched: 0, serving: 0 });
    expect(seeker.peers.view()).toMatchObject({ bytesServed: 0, bytesFetched: content.length });
    expect(scene.facts).toEqual([{ type: "met", outcome: "fetched", bytes: content.length }]);
    expect(scene.introductions.meetings).toBe(0);
  });

  test("asks nobody where the person has not agreed, and nobody answers who has not", async () => {
    const scene = new Scene();
    const server = scene.join({ holds: params, on: false });
    const seeker = scene.join({ on: false });
    expect((await scene.fetch(seeker)).bytes).toBe(null);
    seeker.peers.setOn(true);
    expect((await scene.fetch(seeker)).sentence).toContain("no other volunteer could send it");
    expect(server.said).toEqual([]);
    // A relay that names it all the same gets no answer, and it gathers no address.
    const meeting = new Uint8Array(32);
    server.peers.take({ type: "meet", meeting, blob, peer: new Uint8Array(32), asks: false });
    server.peers.take({ type: "signal", meeting, kind: "offer", sdp: "offer", signature: new Uint8Array(8) });
    await scene.clock.run(scene.clock.nowMs() + 20_000, () => false);
    expect(server.said).toEqual([]);
  });

  test("leaves who sends other bytes, says so, and is not introduced to it again", async () => {
    const scene = new Scene();
    scene.join({ holds: params.map((value) => value + 1) });
    const seeker = scene.join();
    const first = await scene.fetch(seeker);
    expect([first.bytes, first.sentence]).toEqual([null, expect.stringContaining("bytes with another digest")]);
    await scene.clock.run(scene.clock.nowMs() + 10, () => false);
    expect(scene.facts).toEqual([{ type: "met", outcome: "wrong", bytes: 0 }]);
    expect((await scene.fetch(seeker)).sentence).toContain("no other volunteer");
    scene.join({ holds: params });
    expect((await scene.fetch(seeker)).bytes).toEqual(content);
  });

  test.each<[string, NonNullable<Joining["far"]>, number]>([
    ["never answers", () => null, PEER_OPEN_MS],
    ["says nothing", () => sending([]), PEER_STALL_MS],
    ["vanishes", (attach, { links }) => vanishing(attach, links), 100],
    ["sends a part twice", () => sending([part(0), part(0)]), 100],
    ["sends a part that is too short", () => sending([part(0, 10)]), 100],
    ["sends a part that is none of it", () => sending([part(3)]), 100],
    ["sends what cannot be read", () => sending([Uint8Array.of(1, 2, 3)]), 100],
    ["trickles", (_, { clock }) => sending([part(0), part(1), part(2)], clock, 3_900), PEER_STALL_MS + 4_883],
  ])("leaves a peer that %s, in time", async (_, far, withinMs) => {
    const scene = new Scene();
    scene.join({ holds: params, far });
    const { bytes, tookMs, sentence } = await scene.fetch(scene.join());
    expect([bytes, sentence]).toEqual([null, expect.stringContaining("came from the relay: ")]);
    expect(tookMs).toBeLessThan(withinMs + 100);
  });

  test("waits for a relay that says nothing no longer than MEET_MS", async () => {
    const scene = new Scene();
    scene.twist = (message) => (message.type === "seek" ? null : message);
    const { bytes, tookMs } = await scene.fetch(scene.join());
    expect([bytes, tookMs]).toEqual([null, MEET_MS]);
  });

  test.each(["offer", "answer"] as const)("takes no %s that was swapped on its way", async (kind) => {
    const scene = new Scene();
    const server = scene.join({ holds: params });
    scene.twist = (message) =>
      message.type === "signal" && message.kind === kind ? { ...message, sdp: "another's" } : message;
    const { bytes } = await scene.fetch(scene.join());
    expect([bytes, server.peers.view().bytesServed]).toEqual([null, 0]);
  });

  test("takes no description that was signed for another meeting", async () => {
    const scene = new Scene();
    scene.join({ holds: params });
    scene.twist = (message) =>
      message.type === "meet" && message.asks ? { ...message, meeting: new Uint8Array(32).fill(9) } : message;
    expect((await scene.fetch(scene.join())).bytes).toBe(null);
  });

  test("ends at once when the person does not want it any more", async () => {
    const scene = new Scene();
    scene.join({ holds: params, far: () => sending([]) });
    const seeker = scene.join();
    scene.clock.after(500, () => seeker.peers.setOn(false));
    expect((await scene.fetch(seeker)).tookMs).toBe(500);
  });
});

test.each([500, 1])(
  "Peers decline who was introduced when the person paused after %i ms, who need not wait",
  async (atMs) => {
    const scene = new Scene();
    scene.gatherMs = 1_000;
    const [server, seeker] = [scene.join({ holds: params }), scene.join()];
    await scene.clock.run(10, () => false, settle);
    scene.clock.after(atMs, () => server.peers.setOn(false));
    const { bytes, tookMs, sentence } = await scene.fetch(seeker);
    expect([bytes, sentence]).toEqual([null, expect.stringContaining("no other volunteer")]);
    expect(tookMs).toBeLessThan(1_100);
  },
);

describe("Peers.fetch(), of a large checkpoint,", () => {
  const digests = digestPieces(manyBytes, SIX.count);
  /** Who holds it but for one value, which is in part 3. */
  const spoilt = many.with(pieceAt(3, SIX).start / 4 + 1, 0) as Float32Array<ArrayBuffer>;

  test("gets it", async () => {
    const scene = new Scene();
    scene.join({ holds: many, as: manyBlob });
    const seeker = scene.join({ fetchPieces: async () => digests });
    expect((await scene.fetch(seeker, manyBlob, manyBytes.length)).bytes).toEqual(manyBytes);
  });

  test("leaves at the first part that is wrong, says so, and keeps those before it", async () => {
    const scene = new Scene();
    const server = scene.join({ holds: spoilt, as: manyBlob });
    const seeker = scene.join({ fetchPieces: async () => digests });
    const { filled, sentence } = await scene.fetch(seeker, manyBlob, manyBytes.length);
    expect([filled, sentence]).toEqual([pieceAt(3, SIX).start, expect.stringContaining("another digest")]);
    expect(seeker.peers.view().bytesFetched).toBe(filled);
    await scene.clock.run(scene.clock.nowMs() + 10, () => false);
    expect(scene.facts).toEqual([{ type: "met", outcome: "wrong", bytes: 0 }]);
    expect(server.peers.view().serving).toBe(0);
  });

  test.each([
    ["what it has begun", spoilt, pieceAt(3, SIX).start],
    ["nothing", many, null],
  ])("leaves the relay %s", async (_, holds, filled) => {
    const scene = new Scene();
    scene.join({ holds, as: manyBlob });
    const asked: (number | undefined)[] = [];
    const fetching = scene.join({ fetchPieces: async () => digests }).peers.before(async (_blob, _bytes, options) => {
      asked.push(options?.begun?.filled);
      return manyBytes;
    })(manyBlob, manyBytes.length);
    await scene.clock.run(Infinity, () => false, settle);
    expect(await fetching).toEqual(manyBytes);
    expect(asked).toEqual(filled === null ? [] : [filled]);
  });

  /** Of a relay that says nothing of parts. */
  const silent: FetchPieces = (_blob, _bytes, signal) => new Promise((resolve) => signal?.onAbort(() => resolve(null)));

  test("ends at once when the person stops before the relay says what its parts are", async () => {
    const scene = new Scene();
    const seeker = scene.join({ fetchPieces: silent });
    scene.clock.after(500, () => seeker.peers.setOn(false));
    const { filled, tookMs } = await scene.fetch(seeker, manyBlob, manyBytes.length);
    expect([filled, tookMs]).toEqual([undefined, 500]);
    expect(seeker.said).toEqual([]);
  });

  test("ends when it is not wanted any more, which the relay's fetch hears, too", async () => {
    const scene = new Scene();
    const stop = createStop();
    const begun: Begun = { bytes: new Uint8Array(manyBytes.length), filled: 7 };
    const { peers } = scene.join({ fetchPieces: silent });
    const given: unknown[] = [];
    const fetchBlob = peers.before(async (_blob, _bytes, options) => {
      given.push(scene.clock.nowMs(), options);
      return manyBytes;
    });
    scene.clock.after(500, stop.abort);
    const fetching = fetchBlob(manyBlob, manyBytes.length, { signal: stop, begun });
    await scene.clock.run(Infinity, () => false, settle);
    await fetching;
    await fetchBlob(manyBlob, manyBytes.length, { signal: stop });
    expect(given).toEqual([500, { signal: stop, begun }, 500, { signal: stop, begun: null }]);
  });

  test.each<[string, FetchPieces | undefined, number]>([
    ["is not asked", undefined, 0],
    ["does not know", async () => null, 0],
    ["does not answer", () => new Promise(() => undefined), MEET_MS],
  ])("checks all of it at the end where the relay %s of its parts", async (_, fetchPieces, waitsMs) => {
    for (const [holds, bytes, filled] of [
      [many, manyBytes, manyBytes.length],
      [spoilt, null, undefined],
    ] as const) {
      const scene = new Scene();
      scene.join({ holds, as: manyBlob });
      const fetched = await scene.fetch(
        scene.join({ ...(fetchPieces && { fetchPieces }) }),
        manyBlob,
        manyBytes.length,
      );
      expect([fetched.bytes, fetched.filled]).toEqual([bytes, filled]);
      expect(fetched.tookMs).toBeLessThan(waitsMs + 100);
    }
  });

  test("has nothing of one that is what the relay says of its parts, and not of the whole", async () => {
    const scene = new Scene();
    scene.join({ holds: spoilt, as: manyBlob });
    const seeker = scene.join({ fetchPieces: async () => digestPieces(floatBytes(spoilt), SIX.count) });
    expect((await scene.fetch(seeker, manyBlob, manyBytes.length)).filled).toBe(undefined);
  });
});

test("Peers give up an attempt for a version that is the newest no more", async () => {
  const scene = new Scene();
  scene.join({ holds: params, far: () => sending([part(0)], scene.clock, 3_000) });
  const seeker = scene.join();
  seeker.head = blob;
  scene.clock.after(400, () => seeker.peers.update());
  scene.clock.after(500, () => {
    seeker.head = digestOf(Uint8Array.of(2));
    seeker.peers.update();
  });
  expect(await scene.fetch(seeker)).toEqual({ bytes: null, tookMs: 500, sentence: expect.stringContaining("newer") });
});

describe("Consent that is withdrawn while addresses are gathered", () => {
  const ways: readonly (readonly [string, (member: Member) => void])[] = [
    ["unticks", ({ peers }) => peers.setOn(false)],
    ["unticks and ticks", ({ peers }) => [false, true].forEach((on) => peers.setOn(on))],
    ["pauses", (member) => Object.assign(member, { working: false })], // and nobody has called update() yet
  ];
  const both = [
    ["asks", 500],
    ["serves", 2_000],
  ] as const;
  const cases = both.flatMap(([who, atMs]) => ways.map(([way, act]) => [who, way, atMs, act] as const));
  test.each(cases)("keeps the address here: who %s %s", async (who, _, atMs, act) => {
    const scene = new Scene();
    scene.gatherMs = 1_400;
    const [server, seeker] = [scene.join({ holds: params }), scene.join()];
    const one = who === "asks" ? seeker : server;
    scene.clock.after(atMs, () => act(one));
    expect((await scene.fetch(seeker)).bytes).toBe(null);
    await scene.clock.run(scene.clock.nowMs() + 10_000, () => false, settle);
    expect(one.said.filter(({ type }) => type === "signal")).toEqual([]);
    expect(scene.links).toEqual([]);
  });
});

describe("Peers.update()", () => {
  test("tells the relay what is served, and nothing while the person has paused; who is served then is left", async () => {
    const scene = new Scene();
    const server = scene.join({ holds: params });
    expect(server.said).toEqual([{ type: "serve", blob }]);
    let sent = 0;
    scene
      .join()
      .peers.fetch(blob, content.length)
      .catch(() => undefined);
    await scene.clock.run(20, () => server.peers.view().serving > 0);
    expect(server.peers.view().serving).toBe(1);
    server.working = false;
    server.peers.update();
    expect(server.peers.view().serving).toBe(0);
    expect(server.said.at(-1)).toEqual({ type: "serve", blob: null });
    sent = server.peers.view().bytesServed;
    await scene.clock.run(10_000, () => false);
    expect(server.peers.view().bytesServed).toBe(sent);
  });

  test("serves SERVED_AT_ONCE_MAX at a time and its hour's bytes by its share of the time, and declines the rest", async () => {
    const scene = new Scene();
    const server = scene.join({ holds: params });
    const meet = (number: number): void => {
      const meeting = new Uint8Array(32).fill(number);
      const key = scene.registry.create("asks", number);
      server.peers.take({ type: "meet", meeting, blob, peer: key.publicKey, asks: false });
      const both = { meeting, blob, asking: key.publicKey, serving: scene.registry.create(server.id).publicKey };
      const signature = key.signNow("peer-offer", peerProof(both, "offer"));
      server.peers.take({ type: "signal", meeting, kind: "offer", sdp: "offer", signature });
    };
    [1, 2, 3].forEach(meet);
    await scene.clock.run(50, () => false);
    expect(server.peers.view().serving).toBe(SERVED_AT_ONCE_MAX);
    expect(server.said.filter(({ type }) => type === "met")).toMatchObject([{ outcome: "declined" }]);
    // None of them opens a link: both are given up, and their bytes are there again.
    await scene.clock.run(PEER_OPEN_MS + 100, () => false);
    expect(server.peers.view()).toMatchObject({ serving: 0, bytesServed: 0 });

    const lazy = scene.join({ holds: params, duty: (0.9 * content.length) / SERVED_RATE.burst });
    expect(lazy.said).toEqual([]);
  });
});

test("Peers send no more than 1 GB in the first hour at full power, and nearly that where it is asked for", async () => {
  const scene = new Scene();
  const duty = 0.01; // a hundredth of it
  const server = scene.join({ holds: params, duty });
  for (let minute = 0; minute < 60; minute += 1) {
    await scene.fetch(scene.join());
    scene.clock.after(60_000, () => server.peers.update());
    await scene.clock.run(Infinity, () => false, settle);
  }
  const { bytesServed } = server.peers.view();
  expect(bytesServed).toBeLessThanOrEqual(1e9 * duty);
  expect(bytesServed).toBeGreaterThan(0.8e9 * duty);
});

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

/** Part `index` of the content, cut to `bytes`. */
function part(index: number, bytes = PIECE_BYTES): Bytes {
  const { start, end } = pieceAt(index % 3, { bytes: content.length, count: 3 });
  return encodePeerMessage({ type: "part", index, bytes: content.subarray(start, Math.min(end, start + bytes)) });
}

/** An end that sends `messages`, asked or not; `everyMs` apart. */
function sending(messages: readonly Bytes[], clock?: Clock, everyMs = 0): Attach {
  return (link) => {
    messages.forEach((message, i) => {
      if (clock === undefined) {
        link.send(message);
      } else {
        clock.after((i + 1) * everyMs, () => link.send(message));
      }
    });
    return { message: () => undefined, closed: () => undefined };
  };
}

/** An honest end, whose link breaks when it was asked. */
function vanishing(attach: Attach, links: readonly Link[]): Attach {
  return (link) => {
    const { closed } = attach(link);
    return { message: () => links.at(-1)?.close("Gone"), closed };
  };
}
