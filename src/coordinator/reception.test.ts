import { describe, expect, test } from "vitest";
import { present } from "../base/assert.ts";
import { digestOf, type Bytes, type ContributionId } from "../base/bytes.ts";
import { decodeHeader, encodeMessage } from "../protocol/codec.ts";
import { PING_MS } from "../protocol/limits.ts";
import type { ContributionHeader, ContributorMessage } from "../protocol/messages.ts";
import { digestPieces, pieceAt } from "../protocol/pieces.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Keys, Log } from "../store/store.ts";
import type { CoordinatorOptions } from "./host.ts";
import { Actor, calm, charter, honestDelta, joined, pack, started, World } from "./rehearsal.fixture.ts";
import { RESTART_PATIENCE_MS } from "./live.ts";
import { UPLOAD_BYTES_MAX, UPLOAD_IDLE_MS, UPLOAD_REST_MS, Uploads, UPLOADS_MAX, type Offer } from "./uploads.ts";

const COUNT = 4;

/** A contribution in pieces, that its test sends one by one. */
class Upload {
  readonly actor: Actor;
  readonly id: ContributionId;
  readonly offer: Offer;
  readonly payload: Bytes;

  constructor(actor: Actor, id: ContributionId, offer: Offer, payload: Bytes) {
    this.actor = actor;
    this.id = id;
    this.offer = offer;
    this.payload = payload;
  }

  piece(index: number): Extract<ContributorMessage, { readonly type: "piece" }> {
    const { start, end } = pieceAt(index, { bytes: this.payload.length, count: COUNT });
    return { type: "piece", contribution: this.id, index, bytes: this.payload.slice(start, end) };
  }

  async send(...messages: ContributorMessage[]): Promise<void> {
    for (const message of messages) {
      this.actor.send(message);
      await calm(this.actor.world.host);
    }
  }

  /** What the relay says it has, since the last look. */
  confirmed(): number[] {
    const said = this.actor.got.flatMap((one) =>
      one.type === "have" && one.contribution === this.id ? [one.pieces] : [],
    );
    return said.slice(this.#seen, (this.#seen = said.length));
  }
  #seen = 0;
}

async function uploadOf(
  actor: Actor,
  payload = pack(honestDelta(actor.base)),
  change: Partial<ContributionHeader> = {},
): Promise<Upload> {
  const { id, message } = await actor.contribution(payload, change);
  const { header, signature } = message;
  const offer: Offer = { type: "offer", header, signature, pieces: digestPieces(payload, COUNT) };
  return new Upload(actor, id, offer, payload);
}

async function begun(change: Partial<CoordinatorOptions> = {}): Promise<{ world: World; ada: Actor; upload: Upload }> {
  const world = await started(change);
  const [ada] = (await joined(world, "ada")) as [Actor];
  return { world, ada, upload: await uploadOf(ada) };
}

const stored = (world: World): number => world.disk.values.size;

describe("a contribution in pieces", () => {
  test("is confirmed piece by piece, and then judged like one that came whole; nothing of it stays behind", async () => {
    const { world, ada, upload } = await begun();
    await upload.send(upload.offer);
    expect(upload.confirmed()).toEqual([0]);
    await upload.send(upload.piece(0), upload.piece(1), upload.piece(2));
    expect(upload.confirmed()).toEqual([1, 2, 3]);
    expect(stored(world)).toBe(4);
    await upload.send(upload.piece(3));
    expect(upload.confirmed()).toEqual([4]);
    await world.pass(1_000);
    expect(ada.verdictOn(upload.id)).toBe("accepted");
    expect(world.host.head().version).toBe(1);
    expect(world.disk.blobs.get(digestOf(upload.payload))).toEqual(upload.payload);
    expect(stored(world)).toBe(0);
  });

  test("goes on where it was on a new link, and after the relay was killed", async () => {
    const { world, ada, upload } = await begun();
    await upload.send(upload.offer, upload.piece(0), upload.piece(1));
    upload.confirmed();
    ada.pair.cut("cut");
    await ada.connect();
    await upload.send(upload.offer);
    expect(upload.confirmed()).toEqual([2]);
    await upload.send(upload.piece(2));
    await world.start(); // on the same disk; the process before says and writes nothing any more
    await ada.connect();
    await upload.send(upload.offer);
    expect(upload.confirmed()).toEqual([3, 3]);
    await upload.send(upload.piece(3));
    expect(upload.confirmed()).toEqual([4]);
    await world.pass(2 * RESTART_PATIENCE_MS);
    expect(ada.verdictOn(upload.id)).toBe("accepted");
    expect(stored(world)).toBe(0);
  });

  test("is taken when the relay was killed between its last piece and the ledger, or right after", async () => {
    const { world, ada, upload } = await begun();
    const store = createMemoryStore({ disk: world.disk });
    let dead = false;
    const log: Log = {
      ...store.log,
      append: (...entries) => (dead ? new Promise<boolean>(() => {}) : store.log.append(...entries)),
    };
    await world.start({ store: { ...store, log } });
    await ada.connect();
    await upload.send(upload.offer, upload.piece(0), upload.piece(1), upload.piece(2));
    dead = true;
    ada.send(upload.piece(3));
    await new Promise((resolve) => setImmediate(resolve));
    const left = stored(world);
    await world.start();
    await ada.connect();
    await upload.send(upload.offer);
    await world.pass(2 * RESTART_PATIENCE_MS);
    expect(left).toBe(5);
    expect(ada.verdictOn(upload.id)).toBe("accepted");
    expect(stored(world)).toBe(0);
    await upload.send(upload.offer); // a late word from before
    expect(ada.verdictOn(upload.id)).toBe("accepted");
    expect(stored(world)).toBe(0);
  });

  test("names a piece that was damaged and asks for it once more; what follows it waits", async () => {
    const { world, ada, upload } = await begun();
    const damaged = { ...upload.piece(1), bytes: upload.piece(1).bytes.map((byte) => byte ^ 1) as Bytes };
    await upload.send(upload.offer, upload.piece(0), damaged, upload.piece(2), upload.piece(3));
    expect(upload.confirmed()).toEqual([0, 1, 1]);
    expect(world.logged.join()).toMatch(
      /piece 1 of 4 \(bytes 38 to 76\) is not the one that was offered; it is asked for/,
    );
    await upload.send(upload.piece(1), upload.piece(2), upload.piece(3));
    expect(upload.confirmed()).toEqual([2, 3, 4]);
    await world.pass(1_000);
    expect(ada.verdictOn(upload.id)).toBe("accepted");
  });

  test("that was damaged twice is refused at once, and so is what is still on its way", async () => {
    const { world, ada, upload } = await begun();
    const damaged = { ...upload.piece(0), bytes: upload.piece(0).bytes.map((byte) => byte ^ 1) as Bytes };
    await upload.send(upload.offer, damaged, damaged, upload.piece(1));
    expect(ada.verdictOn(upload.id)).toBe("malformed");
    expect(ada.last("refused")?.reason).toBe("not-assigned");
    expect(stored(world)).toBe(0);
    await upload.send(upload.offer);
    expect(ada.verdictOn(upload.id)).toBe("late"); // it was the round's only one
  });

  test("whose pieces are right and whose whole is another is refused", async () => {
    const { world, ada } = await begun();
    const other = { digest: digestOf(Uint8Array.of(1)), bytes: pack(honestDelta(ada.base)).length };
    const upload = await uploadOf(ada, pack(honestDelta(ada.base)), { payload: other });
    await upload.send(upload.offer, ...[0, 1, 2, 3].map((index) => upload.piece(index)));
    expect(ada.got.filter((one) => one.type === "verdict")).toMatchObject([{ verdict: { reason: "malformed" } }]);
    expect(stored(world)).toBe(0);
  });

  test("is refused before its pieces, where it is too large, cannot be cut so, or does not fit the round", async () => {
    for (const [change, reason] of [
      [{ payload: { digest: digestOf(Uint8Array.of(1)), bytes: 50_000_000 } }, "oversized"],
      [{ payload: { digest: digestOf(Uint8Array.of(1)), bytes: 5 } }, "malformed"],
      [{ baseDigest: digestOf(Uint8Array.of(1)) }, "wrong-base"],
      [{ round: 0 }, "late"],
    ] as const) {
      const { world, ada } = await begun();
      const upload = await uploadOf(ada, pack(honestDelta(ada.base)), change);
      await upload.send(upload.offer, upload.piece(0));
      expect(ada.verdictOn(upload.id)).toBe(reason);
      expect(stored(world)).toBe(0);
    }
    const { world, ada, upload } = await begun();
    await upload.send({ ...upload.offer, signature: new Uint8Array(64) });
    expect(ada.verdictOn(upload.id)).toBe("bad-signature");
    expect(stored(world)).toBe(0);
  });

  test("takes no piece of another device, out of turn, of another length or beyond the offer", async () => {
    const world = await started();
    const [ada, eve] = (await joined(world, "ada", "eve")) as [Actor, Actor];
    const upload = await uploadOf(ada);
    await upload.send(upload.piece(0)); // nothing was offered yet
    expect(ada.last("refused")?.reason).toBe("not-assigned");
    await upload.send(upload.offer, upload.piece(0));
    upload.confirmed();
    eve.send(upload.piece(1));
    await calm(world.host);
    expect(eve.last("refused")?.reason).toBe("not-assigned");
    const one = upload.piece(1);
    for (const wrong of [upload.piece(2), { ...one, bytes: one.bytes.slice(1) }, { ...one, index: COUNT }]) {
      const before = ada.got.length;
      await upload.send(wrong);
      expect(ada.got.slice(before)).toEqual([{ type: "refused", reason: "malformed", retryMs: null }]);
    }
    expect(stored(world)).toBe(2);
    await upload.send(upload.piece(0)); // sent twice: nothing is wrong with that
    await upload.send(upload.piece(1));
    expect(upload.confirmed()).toEqual([2]);
  });

  test("takes the place of another one of the same device", async () => {
    const { world, ada, upload } = await begun();
    await upload.send(upload.offer, upload.piece(0), upload.piece(1));
    const second = await uploadOf(ada, pack(honestDelta(ada.base, 0.3)));
    await second.send(second.offer);
    expect(second.confirmed()).toEqual([0]);
    expect(stored(world)).toBe(1);
    await upload.send(upload.piece(2));
    expect(ada.last("refused")?.reason).toBe("not-assigned");
  });

  test("is late when its round closes, which its sender hears at once", async () => {
    const { world, ada, upload } = await begun();
    await upload.send(upload.offer, upload.piece(0));
    await world.pass(charter.round.trainMs + charter.round.graceMs);
    expect(ada.verdictOn(upload.id)).toBe("late");
    expect(stored(world)).toBe(0);
  });

  test("of which the store has lost a piece is asked for that and what follows, and not refused", async () => {
    const { world, ada, upload } = await begun();
    await upload.send(upload.offer, upload.piece(0), upload.piece(1), upload.piece(2));
    const { keys } = createMemoryStore({ disk: world.disk });
    const name = present(
      (await keys.list("upload/")).find((one) => one.endsWith("/1")),
      "its key",
    );
    await keys.delete(name);
    await upload.send(upload.piece(3));
    expect(upload.confirmed()).toEqual([0, 1, 2, 3, 1]);
    expect(world.logged.at(-1)).toMatch(/piece 1 of 4 is lost; it is asked for again/);
    expect(stored(world)).toBe(2);
    await upload.send(upload.piece(1), upload.piece(2), upload.piece(3));
    expect(upload.confirmed()).toEqual([2, 3, 4]);
    await world.pass(1_000);
    expect(ada.verdictOn(upload.id)).toBe("accepted");
    expect(stored(world)).toBe(0);
  });

  test("is forgotten when nothing of it comes for long, also by the next process", async () => {
    const long = { ...charter, round: { ...charter.round, trainMs: 10 * UPLOAD_IDLE_MS } };
    const { world, ada, upload } = await begun({ charter: long });
    await upload.send(upload.offer, upload.piece(0));
    await world.pass(UPLOAD_IDLE_MS - PING_MS);
    expect(stored(world)).toBe(2);
    await world.host.close();
    await world.start({ charter: long });
    await ada.connect();
    await ada.ready();
    await world.pass(UPLOAD_IDLE_MS - PING_MS);
    expect(stored(world)).toBe(2);
    await world.pass(3 * PING_MS);
    expect(stored(world)).toBe(0);
  });
});

describe("what is decided together", () => {
  /** A world whose ledger is written only when `open` is called, and somebody whose beginning is being written: all else waits. */
  async function held(): Promise<{ world: World; ada: Actor; upload: Upload; open: () => void }> {
    const world = await started();
    const store = createMemoryStore({ disk: world.disk });
    let gate: Promise<void> = Promise.resolve();
    const append: Log["append"] = async (...entries) => {
      await gate;
      return store.log.append(...entries);
    };
    await world.start({ store: { ...store, log: { ...store.log, append } } });
    const [ada] = (await joined(world, "ada")) as [Actor];
    const upload = await uploadOf(ada);
    await upload.send(upload.offer, upload.piece(0), upload.piece(1), upload.piece(2));
    upload.confirmed();
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    void new Actor(world, "bob").connect();
    await turns(5);
    return { world, ada, upload, open: resolve };
  }
  const turns = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i += 1) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  };

  test("a report and a contribution in the batch of their session's beginning are answered after it", async () => {
    const { world, open } = await held();
    const eve = new Actor(world, "eve");
    void eve.connect();
    await turns(5);
    eve.send({ type: "report", body: new Uint8Array(10), signature: new Uint8Array(64) });
    eve.send({
      type: "contribute",
      header: new Uint8Array(10),
      signature: new Uint8Array(64),
      payload: new Uint8Array(10),
    });
    await turns(5);
    open();
    await calm(world.host);
    expect(world.failures).toEqual([]);
    expect(eve.got.flatMap((one) => (one.type === "refused" || one.type === "verdict" ? [one.type] : []))).toHaveLength(
      2,
    );
  });

  test("an upload that is complete when its sender's link breaks stays for when it comes back", async () => {
    const { world, ada, upload, open } = await held();
    ada.send(upload.piece(3));
    for (let i = 0; i < 4; i += 1) {
      await Promise.resolve(); // the piece is kept, and the contribution waits to be decided
    }
    ada.pair.cut("cut");
    await turns(2);
    open();
    await calm(world.host);
    expect(world.disk.blobs.has(digestOf(upload.payload))).toBe(false);
    expect(stored(world)).toBe(1 + COUNT);
    await ada.connect();
    await upload.send(upload.offer);
    expect(upload.confirmed()).toEqual([COUNT]);
  });
});

describe("Uploads", () => {
  const uploadsOn = (keys: Keys, nowMs = () => 0): Uploads =>
    new Uploads({ keys, hash: async (bytes) => digestOf(bytes), prefixShare: 0.2, nowMs });

  test("have a limit to their number, and delete what belongs to no offer", async () => {
    const { world, upload } = await begun();
    const { keys } = createMemoryStore({ disk: world.disk });
    await keys.set("upload/nobody/0", Uint8Array.of(1));
    await keys.set("upload/nobody", Uint8Array.of(1));
    await keys.set("uploads", Uint8Array.of(1));
    const uploads = uploadsOn(keys);
    await uploads.read();
    expect(await keys.list("")).toEqual(["uploads"]);
    const header = { payload: { digest: digestOf(Uint8Array.of(1)), bytes: 1_000 } } as ContributionHeader;
    for (let i = 0; i < UPLOADS_MAX; i += 1) {
      const contributor = digestOf(Uint8Array.of(i & 255, i >> 8)) as never;
      expect(await uploads.begin(upload.offer, { ...header, contributor }, null)).not.toBeNull();
    }
    expect(await uploads.begin(upload.offer, { ...header, contributor: "one more" as never }, null)).toBeNull();
    const other = uploadsOn(createMemoryStore().keys);
    const bytes = 2 ** 29;
    const large = (contributor: string) =>
      other.begin(upload.offer, { payload: { ...header.payload, bytes }, contributor } as ContributionHeader, null);
    expect([await large("a"), await large("b")]).not.toContain(null);
    expect(await large("c")).toBeNull();
  });

  test("that rest give way where there is no room, the longest rest first, and only as many as it takes", async () => {
    const { upload } = await begun();
    const { keys } = createMemoryStore();
    let nowMs = 0;
    const uploads = uploadsOn(keys, () => nowMs);
    const offer = (contributor: string, bytes = 2 ** 29) =>
      uploads.begin(upload.offer, { payload: { bytes }, contributor } as ContributionHeader, null);
    await offer("early");
    nowMs += 1_000;
    await offer("late");
    nowMs = UPLOAD_REST_MS - 1;
    expect(await offer("new")).toBeNull();
    await offer("early"); // again, which is no piece of it
    nowMs = UPLOAD_REST_MS + 1_000;
    expect(await offer("new")).not.toBeNull();
    expect((await keys.list("upload/")).toSorted()).toEqual(["upload/late", "upload/new"]);
  });

  test("of one network leave room for others', and make room for their own where they rest", async () => {
    const { upload } = await begun();
    let nowMs = 0;
    const uploads = uploadsOn(createMemoryStore().keys, () => nowMs);
    const offer = async (contributor: string, prefix: string | null, bytes = 1_000): Promise<boolean> =>
      (await uploads.begin(upload.offer, { payload: { bytes }, contributor } as ContributionHeader, prefix)) !== null;
    const admitted = async (name: string, prefix: string | null): Promise<number> => {
      let count = 0;
      for (let i = 0; i < UPLOADS_MAX; i += 1) {
        count += Number(await offer(`${name}${i}`, prefix));
      }
      return count;
    };
    expect(await admitted("one", "192.0.2.0/24")).toBe(51);
    expect(await offer("other", "198.51.100.0/24")).toBe(true);
    expect(await offer("large", "203.0.113.0/24", UPLOAD_BYTES_MAX / 2)).toBe(true); // alone it may have more than its share
    expect(await offer("large too", "203.0.113.0/24")).toBe(false);
    nowMs = UPLOAD_REST_MS;
    expect(await offer("new", "192.0.2.0/24")).toBe(true);
    expect(uploads.all().filter(({ prefix }) => prefix === "192.0.2.0/24")).toHaveLength(51);
    expect(await admitted("own", null)).toBe(UPLOADS_MAX - 1); // beside the one that does not rest
  });

  test("leave what took the place of one that is erased only now, though that was further", async () => {
    for (const other of [true, false]) {
      const { world, ada, upload } = await begun();
      const { keys } = createMemoryStore({ disk: world.disk });
      const uploads = uploadsOn(keys);
      const early = other ? await uploadOf(ada, pack(honestDelta(ada.base, 0.3))) : upload;
      const begin = async ({ offer }: Upload) => {
        const header = decodeHeader(offer.header);
        return present(header.ok ? await uploads.begin(offer, header.value, null) : null, "an upload");
      };
      const before = await begin(upload);
      for (const index of [0, 1, 2]) {
        await uploads.add(before, index, upload.piece(index).bytes);
      }
      uploads.forget(before); // by a tidy: to be erased in its turn
      const after = await begin(early);
      for (const index of [0, 1]) {
        expect(await uploads.add(after, index, early.piece(index).bytes)).toEqual({ type: "held" });
      }
      await uploads.erase(before);
      expect(await uploads.payload(after)).toEqual(early.payload.slice(0, 2 * early.piece(0).bytes.length));
      expect(await keys.list("upload/")).toHaveLength(3);
    }
  });

  test("count no piece of another contribution of the device as theirs, nor one of a version that named none", async () => {
    const { world, ada, upload } = await begun();
    const { keys } = createMemoryStore({ disk: world.disk });
    await upload.send(upload.offer, upload.piece(0), upload.piece(1));
    const second = await uploadOf(ada, pack(honestDelta(ada.base, 0.3)));
    await keys.set(`upload/${ada.id}`, encodeMessage(second.offer)); // the process died before it had erased the first
    await keys.set(`upload/${ada.id}/0`, second.piece(0).bytes);
    const uploads = uploadsOn(keys);
    await uploads.read();
    expect(uploads.of(ada.id)).toMatchObject({ contribution: second.id, held: 0 });
    expect(await keys.list("upload/")).toEqual([`upload/${ada.id}`]);
  });

  test("leave the offer that took the place of one that is erased only now", async () => {
    const { upload } = await begun();
    const { keys } = createMemoryStore();
    const uploads = uploadsOn(keys);
    const header = { payload: { bytes: upload.payload.length }, contributor: "ada" } as ContributionHeader;
    const before = await uploads.begin(upload.offer, header, null);
    uploads.forget(before as never);
    await uploads.begin(upload.offer, header, null);
    await uploads.erase(before as never);
    expect(await keys.list("upload/")).toEqual(["upload/ada"]);
  });
});
