/**
 * Contributors of a campaign: the production session, keys, links and training of a small model, all in this process, so that many
 * contributions are under way at every moment and few processes are needed. What they are told is read off their links, not
 * asked of them, and what they write to their disks is kept for the oracle.
 */
import { decode } from "@msgpack/msgpack";
import { digestOf, floatBytes, type ContributionId, type ContributorId } from "../../src/base/bytes.ts";
import { createRng } from "../../src/base/rng.ts";
import { createContributor, type Contributor, type OpenRtc } from "../../src/contributor/run.ts";
import { createDeviceKey, verifySignature } from "../../src/net/device-key.ts";
import { createBlobFetcher } from "../../src/net/http.ts";
import type { Attach, Link } from "../../src/net/link.ts";
import { dialRtcNode } from "../../src/net/rtc-node.ts";
import { systemClock } from "../../src/net/system-clock.ts";
import { dialWebSocket } from "../../src/net/ws-client.ts";
import { contributionIdOf, contributorIdOf } from "../../src/protocol/codec.ts";
import type { ContributorMessage, RelayMessage } from "../../src/protocol/messages.ts";
import type { Diary, Replica, Told } from "../../src/sim/oracle.ts";
import { createMemoryDisk, createMemoryStore, type MemoryDisk } from "../../src/store/memory.ts";
import { createWasmEngine } from "../../src/wasm/engine.ts";
import { openLine, type Line } from "../fixtures/line.ts";
import { plainWork } from "../fixtures/plain-work.ts";
import { tapped, type Ears } from "../fixtures/tap.ts";

/** Smaller than in production, so that updates of a small model have several. */
const PIECE_BYTES = 32_768;

/** A silent relay is noticed within 15 s, and then dialled anew. */
const SLOW_MS = 20_000;

export interface Member {
  readonly name: string;
  readonly id: ContributorId;
  readonly contributor: Contributor;
  readonly line: Line;
}

/** What a kill may be timed by: a message that reaches a contributor, or that one sends. */
export type Heard = RelayMessage["type"] | ContributorMessage["type"];

export interface Crowd {
  readonly members: readonly Member[];
  readonly told: readonly Told[];
  readonly diaries: readonly Diary[];
  /**
   * Resolves when each has been told that a contribution is accepted that it first sent after this call, with the
   * milliseconds which that took; rejects after `timeoutMs` with what those say who were not. Who is slow is told of before.
   */
  goesOn(timeoutMs: number): Promise<number>;
  /** Resolves with the next message of this type, whoever gets or sends it. */
  next(type: Heard): Promise<void>;
  /** The longest that anybody had no open link to a relay since the last call, in milliseconds. */
  apartMs(): number;
  replicas(): Replica[];
  close(): Promise<void>;
}

export interface CrowdOptions {
  readonly members: number;
  readonly seed: number;
  /** Ports of the relays, those that listen now. */
  readonly ports: () => readonly number[];
  /** Some have not gone on for longer than a silent relay explains, and say this. */
  readonly onSlow: (sentence: string) => void;
}

/** What was heard on all links. */
interface Heardings {
  readonly told: Told[];
  readonly diaries: Diary[];
  /** When each contribution was first sent. */
  readonly begun: Map<ContributionId, number>;
  /** When what was last accepted of each contributor had been sent. */
  readonly answered: Map<ContributorId, number>;
  readonly waiting: Set<(type: Heard) => void>;
  /** Each one's newest link. */
  readonly links: Map<ContributorId, Link>;
  /** Whose newest link has ended, and when; who had another then was without one for so long. */
  readonly alone: Map<ContributorId, number>;
  readonly gapsMs: number[];
}

/** Starts contributors, each over a line of its own and with another relay first; every other one has no WebRTC. */
export async function startCrowd(options: CrowdOptions): Promise<Crowd> {
  const heard: Heardings = {
    told: [],
    diaries: [],
    begun: new Map(),
    answered: new Map(),
    waiting: new Set(),
    links: new Map(),
    alone: new Map(),
    gapsMs: [],
  };
  const { waiting, alone, gapsMs } = heard;
  const indices = Array.from({ length: options.members }, (_, index) => index);
  const members = await Promise.all(indices.map((index) => createMember(index, options, heard)));
  members.forEach(({ contributor }) => contributor.start());
  return {
    members,
    told: heard.told,
    diaries: heard.diaries,
    goesOn: (timeoutMs) => goOn(members, heard, { timeoutMs, onSlow: options.onSlow }),
    next: (wanted) =>
      new Promise((resolve) => {
        const wake = (type: Heard): void => {
          if (type === wanted) {
            waiting.delete(wake);
            resolve();
          }
        };
        waiting.add(wake);
      }),
    apartMs: () => {
      const nowMs = performance.now();
      return Math.max(0, ...gapsMs.splice(0), ...[...alone.values()].map((sinceMs) => nowMs - sinceMs));
    },
    replicas: () =>
      members.map(({ id, contributor }) => {
        const params = contributor.parameters() ?? new Float32Array(0);
        const digest = digestOf(floatBytes(new Float32Array(params)));
        return { contributor: id, version: contributor.view().version ?? -1, digest };
      }),
    close: async () => {
      await Promise.all(members.map(({ contributor }) => contributor.stop()));
      members.forEach(({ line }) => line.close());
    },
  };
}

async function createMember(index: number, { seed, ports }: CrowdOptions, heard: Heardings): Promise<Member> {
  const from = (): number[] => {
    const all = ports();
    const first = index % Math.max(1, all.length);
    return [...all.slice(first), ...all.slice(0, first)];
  };
  const line = await openLine({ ports: from, seed: 1_000 * seed + index });
  const key = await createDeviceKey();
  const id = contributorIdOf(key.publicKey);
  const diary: Diary = { contributor: id, honest: true, pages: [], blobs: new Map() };
  heard.diaries.push(diary);
  const listening = (attach: Attach): Attach => tapped(attach, earsOf(id, heard));
  const openRtc: OpenRtc = (options) =>
    line.overUdp(dialRtcNode, { ...options, attach: listening(options.attach), timeoutMs: 15_000 });
  const engine = await createWasmEngine({ threads: 1 });
  const contributor = createContributor({
    dial: (attach) => {
      const url = `${line.origin.replace("http", "ws")}/link`;
      return dialWebSocket({ url, attach: timed(listening(attach), id, heard) });
    },
    ...(index % 2 === 0 ? { openRtc } : {}),
    fetchBlob: createBlobFetcher({ origin: line.origin }),
    store: createMemoryStore({ disk: diskWithDiary(diary) }),
    clock: systemClock,
    rng: createRng("faults", seed, index),
    key,
    verify: verifySignature,
    engine: { kind: "wasm", device: "campaign", sentence: "" },
    createWork: plainWork(engine, systemClock),
    pieceBytes: PIECE_BYTES,
    agent: "campaign",
  });
  return { name: `contributor ${index}`, id, contributor, line };
}

interface GoOnOptions extends Pick<CrowdOptions, "onSlow"> {
  readonly timeoutMs: number;
}

function goOn(
  members: readonly Member[],
  { answered, waiting }: Heardings,
  { timeoutMs, onSlow }: GoOnOptions,
): Promise<number> {
  const sinceMs = performance.now();
  const late = (): Member[] => members.filter(({ id }) => (answered.get(id) ?? 0) < sinceMs);
  const saying = (): string =>
    late()
      .map(({ name, contributor }) => `${name}: ${contributor.view().sentence}`)
      .join("; ");
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(slow);
      clearTimeout(timer);
      waiting.delete(look);
    };
    const look = (): void => {
      if (late().length === 0) {
        end();
        resolve(performance.now() - sinceMs);
      }
    };
    const slow = setTimeout(() => onSlow(saying()), SLOW_MS);
    const timer = setTimeout(() => {
      end();
      reject(new Error(`Nothing new was accepted within ${timeoutMs} ms of ${saying()}`));
    }, timeoutMs);
    waiting.add(look);
  });
}

function earsOf(contributor: ContributorId, { told, begun, answered, waiting }: Heardings): Ears {
  const wake = (type: Heard): void => [...waiting].forEach((waiter) => waiter(type));
  return {
    received: (message) => {
      if (message.type === "verdict") {
        const { contribution, verdict } = message;
        told.push({ contributor, contribution, verdict, written: true }); // the ledger will tell
        if (verdict.type === "accepted") {
          answered.set(contributor, Math.max(answered.get(contributor) ?? 0, begun.get(contribution) ?? 0));
        }
      }
      wake(message.type);
    },
    sent: (message) => {
      if (message.type === "contribute" || message.type === "offer") {
        const contribution = contributionIdOf(message.header);
        begun.set(contribution, begun.get(contribution) ?? performance.now());
      }
      wake(message.type);
    },
  };
}

/** The same link, with an eye on when there is none. */
function timed(attach: Attach, id: ContributorId, { links, alone, gapsMs }: Heardings): Attach {
  return (link) => {
    links.set(id, link);
    const sinceMs = alone.get(id);
    if (sinceMs !== undefined) {
      gapsMs.push(performance.now() - sinceMs);
    }
    alone.delete(id);
    const handlers = attach(link);
    return {
      ...handlers,
      closed: (reason) => {
        if (links.get(id) === link) {
          alone.set(id, performance.now());
        }
        handlers.closed(reason);
      },
    };
  };
}

/** A disk that keeps of everything that was ever written what the oracle's rule for residuals reads. */
function diskWithDiary({ pages, blobs }: Diary): MemoryDisk {
  const disk = createMemoryDisk();
  const { values } = disk;
  const set = values.set.bind(values);
  values.set = (key, value) => {
    if (key.endsWith("/stored")) {
      return set(key, value); // no page
    }
    const { residual, signed } = decode(value) as Written;
    for (const digest of [residual?.digest, signed?.payload]) {
      const bytes = digest === undefined ? undefined : disk.blobs.get(digest);
      if (digest !== undefined && bytes !== undefined) {
        blobs.set(digest, bytes);
      }
    }
    pages.push({ key, value });
    return set(key, value);
  };
  return disk;
}

/** What a notebook's key holds, as far as it is read here. */
interface Written {
  readonly residual: { readonly digest: Replica["digest"] } | null;
  readonly signed: { readonly payload: Replica["digest"] } | null;
}
