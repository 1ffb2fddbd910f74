/** A contributor's state machine that a test walks event by event, and what its relay may say. */
import type { ContributionId, ContributorId, Digest } from "../base/bytes.ts";
import { createRng, type Rng } from "../base/rng.ts";
import type { RelayMessage, TrainAssignment, VersionInfo } from "../protocol/messages.ts";
import { sampleCharter } from "../protocol/sample.ts";
import type { Counters } from "./projection.ts";
import {
  createState,
  DIAL_BACK_OFF,
  type ContributorEvent,
  type ContributorState,
  type Effect,
  type Pending,
  type SessionLane,
} from "./state.ts";
import { tick } from "./tick.ts";

export const relayKey = new Uint8Array(32).fill(7);
export const digest = (letter: string): Digest => letter.repeat(64) as Digest;
export const identity = {
  publicKey: new Uint8Array(32),
  agent: "test",
  engine: "twin",
  device: "none",
  engineSentence: "",
  privateData: false,
} as const;
export const evaluation = { name: "e", licence: "CC0-1.0", category: "fully-open", shards: [] } as const;
export const charter = sampleCharter([], evaluation);
export const head = (version: number): VersionInfo => ({
  version,
  digest: digest(String(version)),
  parent: version === 0 ? null : digest(String(version - 1)),
  update: version === 0 ? null : { digest: digest("a"), bytes: 10 },
  checkpointBytes: 4,
  evalLoss: 5,
});
export const train = (id: string, version: number): TrainAssignment => ({
  type: "train",
  id,
  round: version,
  baseVersion: version,
  baseDigest: digest(String(version)),
  seed: 1,
  stepsMax: 10,
  keep: 1,
  trainMs: 1000,
});
export const pending: Pending = {
  id: digest("c") as string as ContributionId,
  round: 0,
  baseVersion: 0,
  wireBytes: 100,
  pieces: 1,
  steps: 3,
  loss: 4,
};

export const validation = {
  contribution: digest("e") as string as ContributionId,
  author: digest("f") as string as ContributorId,
  authorSeed: 1,
  authorSteps: 2,
  among: 1,
  privateData: false,
  payload: { digest: digest("b"), bytes: 10 },
  judgeMs: 1000,
};

export const challenge = {
  type: "challenge",
  nonce: new Uint8Array(32),
  relay: relayKey,
  signature: relayKey,
} as const;

/** A contributor that a test walks event by event. */
export class Walk {
  aheadMax = 0;
  lateShare = 0;
  state: ContributorState;
  nowMs = 1000;
  effects: readonly Effect[] = [];
  readonly rng: Rng = createRng("walk");
  /** `run`: what the person agreed to. */
  constructor({ rtc = false, run = null }: { readonly rtc?: boolean; readonly run?: Digest | null } = {}) {
    this.state = createState({ ...identity, run }, rtc);
  }
  on(event: ContributorEvent, afterMs = 1): readonly Effect[] {
    this.nowMs += afterMs;
    const ticked = tick(this.state, event, this.nowMs, this.rng);
    this.state = ticked.state;
    this.effects = ticked.effects;
    return ticked.effects;
  }
  receive(message: RelayMessage, lane: SessionLane = "ws"): readonly Effect[] {
    return this.on({ type: "received", dial: this.state.dial, lane, message });
  }
  /** The relay proves its key. */
  greet(): void {
    this.receive(challenge);
    this.on({ type: "proven", dial: this.state.dial, relay: relayKey });
  }
  /** From nothing to a link that the relay has welcomed. */
  connect(version = 0): readonly Effect[] {
    if (this.state.intent === "stopped") {
      this.on({ type: "start" });
    } else {
      this.on({ type: "woke" }, DIAL_BACK_OFF.capMs);
    }
    this.on({ type: "linked", dial: this.state.dial });
    this.greet();
    const contributor = digest("d") as string as ContributorId;
    const { aheadMax, lateShare } = this;
    const round = { ...charter.round, aheadMax, lateShare };
    const served = { ...charter, round };
    return this.receive({
      type: "welcome",
      run: digest("r"),
      charter: served,
      contributor,
      head: head(version),
      earlier: [],
    });
  }
  /** Connected, prepared, holding the head, ready. */
  settle(version = 0, unanswered: Pending | null = null): readonly Effect[] {
    this.connect(version);
    this.on({ type: "prepared", pending: unanswered, late: null });
    return this.on({ type: "fetched", version, digest: digest(String(version)) });
  }
}
export const types = (effects: readonly Effect[]): string[] =>
  effects.map((effect) => (effect.type === "send" ? effect.message.type : effect.type));

const peers = { able: false, on: false, bytesServed: 0, bytesFetched: 0, serving: 0, sentence: "" };
export const counters: Counters = { nowMs: 0, duty: 1, bytesUp: 0, bytesDown: 0, peers, controlLane: "ws" };
