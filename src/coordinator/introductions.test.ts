import { expect, test } from "vitest";
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { createRng } from "../base/rng.ts";
import { contributorIdOf } from "../protocol/codec.ts";
import type { RelayMessage } from "../protocol/messages.ts";
import type { Fact } from "./fact.ts";
import { FAULTS_MAX, Introductions, SEEK_RATE, SERVE_RATE, type Guest, type Introducing } from "./introductions.ts";

const blob = digestOf(Uint8Array.of(1));
const signature = new Uint8Array(64);

interface Member extends Guest {
  readonly told: RelayMessage[];
}

class Scene {
  nowMs = 0;
  readonly facts: Fact[] = [];
  readonly introductions = new Introductions({
    nowMs: () => this.nowMs,
    rng: createRng("introductions"),
    checkpointBytes: (wanted) => (wanted === blob ? 100 : null),
    fact: (fact) => this.facts.push(fact),
  });
  #members = 0;

  join(serves: Digest | null = null): Member {
    this.#members += 1;
    const publicKey = new Uint8Array(32).fill(this.#members);
    const told: RelayMessage[] = [];
    const send = (message: RelayMessage): void => void told.push(message);
    const member = { id: this.#members, publicKey, contributor: contributorIdOf(publicKey), told, send };
    this.say(member, { type: "serve", blob: serves });
    return member;
  }

  say(member: Member, message: Introducing): void {
    this.introductions.take(member, message);
  }

  /** Asks; the meeting's name, or null. */
  seek(member: Member): Bytes | null {
    this.say(member, { type: "seek", blob });
    const answer = member.told.at(-1);
    return answer?.type === "meet" ? answer.meeting : null;
  }

  met(member: Member, meeting: Bytes | null, outcome: "fetched" | "failed" | "wrong" | "declined", bytes = 0): void {
    this.say(member, { type: "met", meeting: meeting as Bytes, outcome, bytes });
  }

  signal(member: Member, meeting: Bytes | null, kind: "offer" | "answer"): void {
    this.say(member, { type: "signal", meeting: meeting as Bytes, kind, sdp: "v=0", signature });
  }
}

const types = ({ told }: Member): string[] =>
  told.map((message) => (message.type === "signal" ? message.kind : message.type));

test("Introductions name both to each other, and carry one offer and one answer between those two", () => {
  const scene = new Scene();
  const [server, seeker, third] = [scene.join(blob), scene.join(), scene.join()];
  const meeting = scene.seek(seeker);
  expect(server.told).toEqual([{ type: "meet", meeting, blob, peer: seeker.publicKey, asks: false }]);
  expect(seeker.told).toEqual([{ type: "meet", meeting, blob, peer: server.publicKey, asks: true }]);
  scene.signal(server, meeting, "answer"); // there is no offer yet
  scene.signal(server, meeting, "offer");
  scene.signal(third, meeting, "offer");
  scene.signal(seeker, meeting, "answer");
  scene.signal(seeker, new Uint8Array(32), "offer");
  expect([types(server), types(seeker), third.told]).toEqual([["meet"], ["meet"], []]);
  scene.signal(seeker, meeting, "offer");
  scene.signal(seeker, meeting, "offer");
  scene.signal(third, meeting, "answer");
  scene.signal(server, meeting, "answer");
  scene.signal(server, meeting, "answer");
  expect([types(server), types(seeker), third.told]).toEqual([["meet", "offer"], ["meet", "answer"], []]);
  scene.met(server, meeting, "fetched", 100); // that is not for it to say
  scene.met(third, meeting, "failed");
  expect(scene.facts).toEqual([]);
  scene.met(seeker, meeting, "fetched", 5_000);
  expect(scene.facts).toEqual([{ type: "met", outcome: "fetched", bytes: 100 }]);
  expect(scene.introductions.meetings).toBe(0);
});

test("Introductions draw at random among those who serve that checkpoint now, and never the one who asks", () => {
  const scene = new Scene();
  const servers = [scene.join(blob), scene.join(blob), scene.join(blob)];
  const [, gone] = servers as [Member, Member, Member];
  scene.say(gone, { type: "serve", blob: null });
  scene.join(digestOf(Uint8Array.of(2)));
  for (let i = 0; i < 30; i += 1) {
    scene.nowMs += 60_000;
    scene.seek(i === 0 ? (servers[0] as Member) : scene.join());
  }
  const asked = servers.map(({ told }) => told.filter((message) => message.type === "meet" && !message.asks).length);
  expect(asked[0]).toBeGreaterThan(5);
  expect([asked[1], (asked[0] as number) + (asked[2] as number)]).toEqual([0, 30]);
});

test("Introductions are rationed: for who asks, for who is asked, and for checkpoints of this run alone", () => {
  const scene = new Scene();
  const seeker = scene.join();
  expect(scene.seek(seeker)).toBe(null);
  scene.say(seeker, { type: "seek", blob: digestOf(Uint8Array.of(2)) });
  expect(types(seeker)).toEqual(["alone", "alone"]);
  scene.nowMs += 60_000;
  const server = scene.join(blob);
  const seekers = Array.from({ length: 4 }, () => scene.join());
  expect(seekers.map((one) => scene.seek(one) !== null)).toEqual([true, true, false, false]);
  expect(server.told).toHaveLength(SERVE_RATE.burst);
  const busy = Array.from({ length: 10 }, () => scene.join(blob));
  expect(busy).toHaveLength(10);
  const granted = Array.from({ length: 5 }, () => scene.seek(seeker) !== null);
  expect(granted.filter(Boolean)).toHaveLength(SEEK_RATE.burst);
});

test("Introductions never name one who failed somebody to it again, and one who failed several to nobody", () => {
  const scene = new Scene();
  scene.join(blob);
  const seekers = Array.from({ length: FAULTS_MAX }, () => scene.join());
  for (const [i, seeker] of seekers.entries()) {
    scene.nowMs += 60_000;
    scene.met(seeker, scene.seek(seeker), i === 0 ? "wrong" : "failed");
    scene.nowMs += 60_000;
    expect(scene.seek(seeker)).toBe(null);
  }
  expect(scene.seek(scene.join())).toBe(null);
  scene.join(blob);
  expect(scene.seek(scene.join())).not.toBe(null);
});

test("Introductions hold it against who leaves after its answer, also when it comes again", () => {
  const scene = new Scene();
  let server = scene.join(blob);
  for (let i = 0; i < FAULTS_MAX; i += 1) {
    scene.nowMs += 60_000;
    const seeker = scene.join();
    const meeting = scene.seek(seeker);
    scene.signal(seeker, meeting, "offer");
    scene.signal(server, meeting, "answer");
    scene.introductions.left(server.id);
    scene.met(seeker, meeting, "failed");
    expect([scene.facts.length, scene.introductions.meetings]).toEqual([i + 1, 0]);
    server = { ...server, id: 1_000 + i, told: server.told };
    scene.say(server, { type: "serve", blob });
    scene.nowMs += 60_000;
    expect(scene.seek(seeker)).toBe(null);
  }
  expect(scene.seek(scene.join())).toBe(null);
});

test("Introductions end when one leaves or declines, and nothing is kept of who left", () => {
  const scene = new Scene();
  const [server, first, second] = [scene.join(blob), scene.join(), scene.join()];
  scene.met(server, scene.seek(first), "declined");
  expect(types(first)).toEqual(["meet", "alone"]);
  expect(scene.seek(second)).not.toBe(null);
  scene.introductions.left(server.id);
  expect(types(second)).toEqual(["meet", "alone"]);
  expect(scene.introductions.meetings).toBe(0);
  scene.nowMs += 60_000;
  expect(scene.seek(second)).toBe(null);
  const late = scene.join(blob);
  const meeting = scene.seek(second);
  scene.introductions.left(second.id);
  scene.signal(late, meeting, "answer");
  expect([types(late), scene.introductions.meetings]).toEqual([["meet"], 0]);
});
