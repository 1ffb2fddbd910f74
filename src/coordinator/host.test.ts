import { describe, expect, test } from "vitest";
import { digestOf, floatBytes, type Bytes, type ContributionId, type Digest } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import type { Link } from "../net/link.ts";
import { createMemoryPair } from "../net/memory.ts";
import { verifyChain } from "../protocol/chain.ts";
import {
  contributionIdOf,
  decodeRelayMessage,
  encodeMessage,
  encodeReport,
  rtcProof,
  sessionProof,
} from "../protocol/codec.ts";
import { BEAT_MS, DEAD_MS, OFFER_PAUSE_MS, PIECE_BYTES, PING_MS, PROTOCOL_VERSION } from "../protocol/limits.ts";
import type { RelayMessage } from "../protocol/messages.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Log } from "../store/store.ts";
import { applyUpdate } from "../update/delta.ts";
import { packUpdate } from "../update/pack.ts";
import { unpackUpdate } from "../update/unpack.ts";
import type { Fact } from "./fact.ts";
import { BUSY_RETRY_MS } from "./live.ts";
import { HANDSHAKE_MS, ICE_RENEW_MS, STRIKES_MAX } from "./peer.ts";
import {
  Actor,
  calm,
  charter,
  exact,
  honestDelta,
  initial,
  joined,
  keyOf,
  lossOf,
  P,
  pack,
  started,
  verify,
  World,
} from "./rehearsal.fixture.ts";

describe("rounds", () => {
  test("three contributors train, judge each other and get the next version, which replays from its parts", async () => {
    const entries: string[] = [];
    const versions: number[] = [];
    const facts: Fact[] = [];
    const world = await started({
      onFact: (fact) => facts.push(fact),
      onEntry: (entry) => entries.push(entry.event.type),
      onVersion: ({ version }) => versions.push(version),
    });
    const actors = await joined(world, "ada", "bob", "cyd");
    const ids: ContributionId[] = [];
    for (const [i, actor] of actors.entries()) {
      ids.push(await actor.contribute(pack(honestDelta(actor.base, 0.2 + i / 50))));
    }
    expect(world.host.view()).toMatchObject({ phase: "judging", round: 1, connected: 3, parameters: P });
    for (const actor of actors) {
      await actor.validate();
    }
    await calm(world.host);
    expect(actors.map((actor, i) => actor.verdictOn(ids[i] as ContributionId))).toEqual([
      "accepted",
      "accepted",
      "accepted",
    ]);
    const head = world.host.head();
    expect(head.version).toBe(1);
    expect(actors.every((actor) => actor.last("version")?.head.digest === head.digest)).toBe(true);
    const update = unpackUpdate(world.disk.blobs.get(head.update?.digest as Digest) as Bytes, {
      parameters: P,
      keepMax: 4096,
    });
    expect(update.ok && digestOf(floatBytes(applyUpdate(initial, update.value)))).toBe(head.digest);
    expect(head.evalLoss).toBeLessThan(lossOf(initial));
    expect(versions).toEqual([1]);
    expect(world.host.view().versions.at(-1)).toMatchObject({ accepted: 3, contributors: 3, refused: 0 });
    const bytesUp = world.host.view().versions.at(-1)?.bytesUp ?? 0;
    expect(bytesUp).toBeGreaterThan(500);
    const works = facts.flatMap((fact) => (fact.type === "assigned" ? [fact.work] : []));
    expect(works.toSorted()).toEqual(["train", "train", "train", "validate", "validate", "validate"]);
    expect(facts.reduce((sum, fact) => sum + (fact.type === "carried" ? fact.up : 0), 0)).toBe(bytesUp);
    expect(world.host.lanes()).toEqual({ memory: 3, ws: 0, rtc: 0 });
    expect(entries.length).toBe(world.disk.entries.length);
    expect(await verifyChain(world.disk.entries, { verify })).toMatchObject({ ok: true });
    expect(world.host.isPublic(head.digest) && world.host.isPublic(head.parent as string)).toBe(true);
    expect(world.host.isPublic(digestOf(Uint8Array.of(1)))).toBe(false);
  });

  test("a validator that lies to refuse is overruled, and one that lies to accept is caught by an audit", async () => {
    const audits = { ...charter, trust: { ...charter.trust, auditShare: 1 } };
    const world = await started({ charter: audits });
    const [ada, bob] = (await joined(world, "ada", "bob")) as [Actor, Actor];
    const good = await ada.contribute();
    const bad = await bob.contribute(pack(honestDelta(bob.base, -0.25)));
    const praise = { assignedBefore: 3, assignedAfter: 1, randomBefore: 3, randomAfter: 1 };
    await ada.validate(praise);
    await bob.validate({ ...praise, randomAfter: 9 });
    await calm(world.host);
    expect(ada.verdictOn(good)).toBe("accepted");
    expect(bob.verdictOn(bad)).toBe("harmful");
  });

  test("what becomes due while the disk is busy is done right after", async () => {
    const world = new World();
    const store = createMemoryStore({ disk: world.disk });
    let busyMs = 0;
    const log: Log = {
      ...store.log,
      append: async (after, entries) => {
        world.clock.now += busyMs;
        return store.log.append(after, entries);
      },
    };
    await world.start({ store: { ...store, log } });
    const [ada] = (await joined(world, "ada")) as [Actor];
    busyMs = charter.round.trainMs; // longer than anything that contributing makes the run wait for
    const { message } = await ada.contribution(pack(honestDelta(ada.base)));
    ada.send(message); // and nothing after it that would have the run looked at again
    await calm(world.host);
    busyMs = 0;
    await world.pass(10);
    expect(world.host.head().version).toBe(1);
  });

  test("bytes of links and downloads are counted for the version they led to", async () => {
    const world = await started();
    const [ada] = (await joined(world, "ada")) as [Actor];
    world.host.countDownload(1_000_000);
    await ada.contribute();
    await world.pass(1_000);
    const { bytesUp, bytesDown } = world.host.view().versions.at(-1) as {
      readonly bytesUp: number;
      readonly bytesDown: number;
    };
    expect(bytesUp).toBeGreaterThan(500);
    expect(bytesUp).toBeLessThan(5_000);
    expect(bytesDown).toBeGreaterThan(1_000_000);
    expect(bytesDown).toBeLessThan(1_010_000);
  });
});

describe("poisoned contributions", () => {
  /** What eve sends in a round in which three others are honest; the reason she gets. */
  const reasonFor = async (
    make: (eve: Actor, world: World) => Promise<ContributionId>,
  ): Promise<string | undefined> => {
    const world = await started();
    const honest = await joined(world, "ada", "bob", "cyd");
    const [eve] = (await joined(world, "eve")) as [Actor];
    for (const [i, actor] of honest.entries()) {
      await actor.contribute(pack(honestDelta(actor.base, 0.2 + i / 50)));
    }
    const id = await make(eve, world);
    await world.pass(2_000);
    for (const actor of [...honest, eve]) {
      if (actor.got.some((one) => one.type === "assign" && one.assignment.type === "validate")) {
        await actor.validate();
      }
    }
    await world.pass(60_000);
    expect(world.host.head().version).toBe(1);
    expect(world.host.view().versions.at(-1)).toMatchObject({ accepted: 3, refused: 1 });
    return eve.verdictOn(id);
  };
  const delta = honestDelta(initial);

  test("noise of plausible norm does harm or improves nothing", async () => {
    const rng = createRng("noise");
    const noise = Float64Array.from({ length: P }, () => 0.3 * rng.normal());
    expect(["harmful", "no-improvement"]).toContain(await reasonFor((eve) => eve.contribute(pack(noise))));
  });
  test("a flipped sign is harmful", async () => {
    expect(await reasonFor((eve) => eve.contribute(pack(delta.map((value) => -value))))).toBe("harmful");
  });
  test("a hundred times the norm is too large", async () => {
    expect(await reasonFor((eve) => eve.contribute(pack(delta.map((value) => 100 * value))))).toBe("norm-too-large");
  });
  test("NaN is not finite", async () => {
    const payload = pack(delta);
    new DataView(payload.buffer).setFloat64(payload.length - 8, NaN, true);
    expect(await reasonFor((eve) => eve.contribute(payload))).toBe("not-finite");
  });
  test("the wrong base is named so", async () => {
    const baseDigest = digestOf(Uint8Array.of(1));
    expect(await reasonFor((eve) => eve.contribute(pack(delta), { baseDigest }))).toBe("wrong-base");
  });
  test("another's update is replayed, under a new header or under its own", async () => {
    expect(await reasonFor((eve) => eve.contribute(pack(honestDelta(eve.base, 0.2))))).toBe("replayed");
    const world = await started();
    const [ada, eve] = (await joined(world, "ada", "eve")) as [Actor, Actor];
    const { id, message } = await ada.contribution(pack(delta));
    ada.send(message);
    eve.send(message);
    await calm(world.host);
    expect(eve.verdictOn(id)).toBe("replayed");
  });
  test("a cut update is truncated, whether it was signed whole or cut", async () => {
    const payload = pack(delta);
    const cut = payload.slice(0, -9);
    expect(await reasonFor((eve) => eve.contribute(cut))).toBe("truncated");
    const whole = { payload: { digest: digestOf(payload), bytes: payload.length } };
    expect(await reasonFor((eve) => eve.contribute(cut, whole))).toBe("truncated");
  });
  test("an update of more than the run allows is oversized, in its bytes or in its parameters", async () => {
    const large = packUpdate(new Float64Array(P + 1).fill(0.01), exact);
    expect(await reasonFor((eve) => eve.contribute(large))).toBe("oversized");
    const bytes = new Uint8Array(PIECE_BYTES);
    expect(await reasonFor((eve) => eve.contribute(bytes))).toBe("oversized");
  });
  test("a signature of another key, and bytes that are no update, are named so", async () => {
    const forged = async (eve: Actor): Promise<ContributionId> => {
      const { id, message } = await eve.contribution(pack(delta));
      eve.send({ ...message, signature: new Uint8Array(64) });
      await eve.ready();
      return id;
    };
    expect(await reasonFor(forged)).toBe("bad-signature");
    expect(await reasonFor((eve) => eve.contribute(new Uint8Array(100)))).toBe("malformed");
  });
});

describe("sessions", () => {
  test("are opened by whoever proves a key, and by nobody else", async () => {
    const world = await started();
    const ada = new Actor(world, "ada");
    await ada.connect();
    expect(ada.last("welcome")).toMatchObject({ run: world.host.view().run, contributor: ada.id, charter });
    const eve = new Actor(world, "eve");
    await eve.connect(new Uint8Array(64));
    expect(eve.last("refused")?.reason).toBe("bad-signature");
    expect(eve.closed).toMatch(/could not be proven/);
    expect(world.host.view().connected).toBe(1);
  });

  test("get a nonce of their own", async () => {
    const world = await started();
    const nonces: string[] = [];
    for (const name of ["ada", "bob", "ada"]) {
      const actor = new Actor(world, name);
      await actor.connect();
      nonces.push(String(actor.last("challenge")?.nonce));
    }
    expect(new Set(nonces).size).toBe(3);
  });

  test("of another protocol version are told so", async () => {
    const world = await started();
    const got: RelayMessage[] = [];
    const pair = createMemoryPair({
      attachA: () => ({
        message: (bytes) => {
          const decoded = decodeRelayMessage(bytes);
          got.push(...(decoded.ok ? [decoded.value] : []));
        },
        closed: () => undefined,
      }),
      attachB: world.host.attach,
    });
    const key = keyOf("ada");
    const { publicKey } = key;
    const hello = {
      type: "hello",
      protocol: PROTOCOL_VERSION + 1,
      publicKey,
      nonce: new Uint8Array(32),
      agent: "",
      engine: "wasm",
      device: "",
      privateData: false,
    } as const;
    pair.a.send(encodeMessage(hello));
    await calm(world.host);
    expect(got).toEqual([{ type: "refused", reason: "wrong-version", retryMs: null }]);
  });

  test("end when they are silent, or do not finish the handshake", async () => {
    const world = await started();
    const [ada] = (await joined(world, "ada")) as [Actor];
    let ended = "";
    createMemoryPair({
      attachA: () => ({ message: () => undefined, closed: (reason) => (ended = reason) }),
      attachB: world.host.attach,
    });
    await world.pass(HANDSHAKE_MS + 5_000);
    expect(ended).toMatch(/too long/);
    expect(ada.closed).toBeNull(); // it answers pings
    ada.send({ type: "ping" }); // its last word
    ada.send = () => undefined;
    await world.pass(DEAD_MS - 2 * BEAT_MS);
    expect(ada.closed).toBeNull();
    await world.pass(2 * BEAT_MS);
    expect(ada.closed).toMatch(/silent/);
    expect(world.host.view().connected).toBe(0);
  });

  test("lose a second link that is silent for as long, and nothing else", async () => {
    let ended: string | null = null;
    let pings = 0;
    const world = await started({
      answerRtc: async (_, attach) => {
        createMemoryPair({
          attachA: () => ({ message: () => (pings += 1), closed: (reason) => (ended = reason) }),
          attachB: attach,
        });
        return "answer";
      },
    });
    const [ada] = (await joined(world, "ada")) as [Actor];
    await ada.offer("offer");
    await world.pass(DEAD_MS - 2 * BEAT_MS);
    expect([ended, pings]).toEqual([null, 2]);
    await world.pass(2 * BEAT_MS);
    expect(ended).toMatch(/silent on this lane/);
    await world.pass(2 * DEAD_MS);
    expect(ada.closed).toBeNull();
  });

  test("outlive a relay that was held up for longer than anybody may be silent", async () => {
    const world = await started();
    const [ada] = (await joined(world, "ada")) as [Actor];
    world.clock.now += 10 * DEAD_MS; // no timer fires, nothing is heard
    await world.pass(2 * DEAD_MS);
    expect(ada.closed).toBeNull();
  });

  test("that send what cannot be read are refused each time and closed after a few", async () => {
    const world = await started();
    const [eve] = (await joined(world, "eve")) as [Actor];
    const rng = createRng("garbage");
    for (let i = 0; i < 2 * STRIKES_MAX; i += 1) {
      eve.pair.a.send(Uint8Array.from({ length: 1 + rng.below(300) }, () => rng.below(256)));
    }
    await calm(world.host);
    expect(eve.got.filter((one) => one.type === "refused").length).toBe(STRIKES_MAX);
    expect(eve.closed).toMatch(/cannot be right/);
    await eve.connect();
    expect(eve.last("welcome")).toBeDefined();
  });

  test("that flood the queue are closed", async () => {
    const world = await started();
    const [eve] = (await joined(world, "eve")) as [Actor];
    for (let i = 0; i < 200; i += 1) {
      eve.send({ type: "ready", version: 7 });
    }
    await calm(world.host);
    expect(eve.last("refused")).toEqual({ type: "refused", reason: "busy", retryMs: BUSY_RETRY_MS });
    expect(eve.closed).toMatch(/more than can be handled/);
  });

  test("reports that were not asked for, or forged, are refused", async () => {
    const world = await started();
    const [ada] = (await joined(world, "ada")) as [Actor];
    const { run } = world.host.view();
    const contribution = contributionIdOf(Uint8Array.of(1));
    const losses = { assignedBefore: 1, assignedAfter: 1, randomBefore: 1, randomAfter: 1 };
    const body = encodeReport({ run, validator: ada.id, assignment: "v1-0-0", contribution, ...losses });
    ada.send({ type: "report", body, signature: new Uint8Array(64) });
    await calm(world.host);
    expect(ada.last("refused")?.reason).toBe("bad-signature");
    ada.send({ type: "report", body, signature: await ada.key.sign("report", body) });
    await calm(world.host);
    expect(ada.last("refused")?.reason).toBe("not-assigned");
  });

  test("may open a second link, over which a contribution arrives", async () => {
    let second: { readonly link: Link } | undefined;
    const world = await started({
      answerRtc: async (sdp, attach) => {
        const pair = createMemoryPair({
          attachA: () => ({ message: () => undefined, closed: () => undefined }),
          attachB: attach,
        });
        second = { link: pair.a };
        return `answer to ${sdp}`;
      },
    });
    const [ada] = (await joined(world, "ada")) as [Actor];
    const { nonce, relay } = await ada.offer("offer");
    const answer = ada.last("rtc");
    expect(answer).toMatchObject({ type: "rtc", kind: "answer", sdp: "answer to offer" });
    const proof = rtcProof({ nonce, offer: "offer", answer: "answer to offer" });
    expect(await verify(relay, "rtc", proof, answer?.signature as Bytes)).toBe(true);
    const { id, message } = await ada.contribution(pack(honestDelta(ada.base)));
    second?.link.send(encodeMessage(message));
    await world.pass(2_000);
    expect(ada.verdictOn(id)).toBe("accepted");
    ada.send(message); // and once more on the first
    await calm(world.host);
    expect(world.host.head().version).toBe(1);
    second?.link.close("done");
    await calm(world.host);
    expect(ada.closed).toBeNull();
  });

  test("have an offer refused that somebody in the middle has changed, or signed for another session", async () => {
    let offers = 0;
    const world = await started({ answerRtc: async () => `answer ${(offers += 1)}` });
    const [ada, bob] = (await joined(world, "ada", "bob")) as [Actor, Actor];
    const { message } = await ada.signedOffer("offer");
    ada.send({ ...message, sdp: "offer with another fingerprint" });
    bob.send(message);
    await calm(world.host);
    for (const actor of [ada, bob]) {
      expect(actor.last("refused")).toEqual({ type: "refused", reason: "bad-signature", retryMs: null });
      expect(actor.closed).toBeNull();
    }
    expect(offers).toBe(0);
    expect(world.logged.at(-1)).toMatch(/not the one that the device has signed/);
  });

  test("begin with the relay's proof of the key that signs the ledger, for this hello alone", async () => {
    const world = await started();
    const ada = new Actor(world, "ada");
    await ada.connect();
    const { nonce, relay, signature } = ada.last("challenge") as Extract<RelayMessage, { type: "challenge" }>;
    expect(relay).toEqual(keyOf("relay").publicKey);
    expect(await verify(relay, "relay", sessionProof({ nonce, hello: ada.hello }), signature)).toBe(true);
    const other = sessionProof({ nonce, hello: ada.hello.toReversed() });
    expect(await verify(relay, "relay", other, signature)).toBe(false);
  });

  test("are told of STUN and TURN servers before they are welcomed, and anew before what lets them in has ended", async () => {
    let given = 0;
    const world = await started({
      iceServers: (id) => [{ url: "turn:192.0.2.1", username: `${(given += 1)}:${id}`, credential: "secret" }],
    });
    const [ada] = (await joined(world, "ada")) as [Actor];
    expect(ada.got.slice(0, 3).map(({ type }) => type)).toEqual(["challenge", "ice", "welcome"]);
    expect(ada.last("ice")?.servers[0]?.username).toBe(`1:${ada.id}`);
    await world.pass(ICE_RENEW_MS + PING_MS);
    expect(ada.last("ice")?.servers[0]?.username).toBe(`2:${ada.id}`);
  });

  test("are introduced to nobody before they are welcomed, and banned devices never", async () => {
    const iceServers = () => [{ url: "stun:stun.example:3478", username: null, credential: null }];
    const world = await started({ iceServers });
    const blob = world.host.head().digest;
    const eve = new Actor(world, "eve");
    await world.host.operate({ type: "ban", contributor: eve.id, why: "Sends noise" });
    const connecting = eve.connect();
    for (let turn = 0; turn < 1_000 && eve.last("ice") === undefined; turn += 1) {
      await Promise.resolve();
    }
    expect(eve.got.map(({ type }) => type)).toEqual(["challenge", "ice"]); // its proof was good, and it is not yet turned away
    eve.send({ type: "seek", blob });
    await connecting;
    expect(eve.got.map(({ type }) => type)).toEqual(["challenge", "ice", "banned"]);
    const [ada] = (await joined(world, "ada")) as [Actor];
    ada.send({ type: "seek", blob });
    await calm(world.host);
    expect(ada.last("alone")).toEqual({ type: "alone", blob });
  });

  test("may not offer one link after the other", async () => {
    let offers = 0;
    const answerRtc = async (): Promise<string> => `answer ${(offers += 1)}`;
    const world = await started({ answerRtc });
    const [ada] = (await joined(world, "ada")) as [Actor];
    const offer = () => ada.offer("offer");
    await offer();
    await offer();
    expect(offers).toBe(1);
    expect(ada.last("refused")).toEqual({ type: "refused", reason: "busy", retryMs: OFFER_PAUSE_MS });
    for (let ms = 0; ms < OFFER_PAUSE_MS; ms += 5_000) {
      ada.send({ type: "ping" });
      await world.pass(5_000);
    }
    await offer();
    expect(offers).toBe(2);
    for (let i = 0; i < STRIKES_MAX; i += 1) {
      await offer();
    }
    expect(ada.closed).not.toBeNull();
  });
});
