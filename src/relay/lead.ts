/**
 * A relay that leads its run: store, coordinator and referee wired together. Alone, or as the one among several that holds the
 * lease: then it takes the links that edges carry to it, and says on the bus what they need to know.
 */
import { messageIn } from "../base/assert.ts";
import { createCoordinatorHost, type CoordinatorHost } from "../coordinator/host.ts";
import type { Fold } from "../coordinator/journal.ts";
import { initialParameters, parameterLayout } from "../model/layout.ts";
import { acceptEdges, type AnswerRtc, type EdgeAcceptor } from "../net/bus-link.ts";
import { verifySignature } from "../net/device-key.ts";
import { createSecretRng } from "../net/secret-rng.ts";
import { systemClock } from "../net/system-clock.ts";
import type { DeviceKey } from "../protocol/keys.ts";
import { SESSIONS_MAX } from "../protocol/limits.ts";
import type { VersionView } from "../protocol/run-view.ts";
import type { Bus } from "../store/bus.ts";
import { hashBytes } from "../store/hash.ts";
import type { Lease } from "../store/lease.ts";
import { CUT_OFF_MS } from "../store/store.ts";
import { startBeats, type Beats } from "./beat.ts";
import type { RelayConfig } from "./config.ts";
import type { Source } from "./front.ts";
import { openIce } from "./ice.ts";
import type { Log } from "./log.ts";
import { startCrew, workersFor } from "./merge-crew.ts";
import type { Metrics } from "./metrics.ts";
import { toldLog } from "./news.ts";
import type { PlacedStore } from "./place.ts";
import { startReferee } from "./referee.ts";
import { openRun } from "./run.ts";

/** Relays of one run that one leader serves. */
const RELAYS_MAX = 16;
/** Parameters times tokens of a batch, from which on the first measurement takes so long that a person wonders. */
const SLOW_WORK = 1e10;

export interface LeadOptions {
  readonly config: RelayConfig;
  readonly log: Log;
  readonly store: PlacedStore;
  readonly metrics: Metrics;
  readonly key: DeviceKey;
  /** Answers offers that came over this relay's own links. */
  readonly answerRtc: AnswerRtc;
  /** The other relays of this run, and what following one of them has read of the ledger; null where there are none. */
  readonly among: {
    readonly bus: Bus;
    readonly lease: Lease;
    readonly name: string;
    readonly known: Fold | null;
  } | null;
  /** The run has changed, and `version` is new. */
  readonly onChange: (version: VersionView | null) => void;
  readonly onDrained: () => void;
  readonly onFailure: (error: unknown) => void;
}

export interface Leading extends Source {
  readonly host: CoordinatorHost;
  /** The place held this run already. */
  readonly kept: boolean;
  /** Ends all links, edges' ones with `reason`, and gives the lease to whoever waits. */
  close(reason: string): Promise<void>;
}

/** Begins the run or goes on with it. Rejects as `openRun` and `createCoordinatorHost` do; the lease is given up then. */
export async function lead(options: LeadOptions): Promise<Leading> {
  const { among } = options;
  const opened: ((reason: string) => unknown)[] = among === null ? [] : [() => among.lease.release()];
  const close = async (reason: string): Promise<void> => {
    for (const end of opened.splice(0).reverse()) {
      await end(reason);
    }
  };
  try {
    return { ...(await open(options, (end) => opened.push(end))), close };
  } catch (error) {
    await close("The relay could not begin");
    throw error;
  }
}

async function open(
  options: LeadOptions,
  closing: (end: (reason: string) => unknown) => unknown,
): Promise<Omit<Leading, "close">> {
  const { config, log, store, metrics, key, answerRtc, among, onChange, onDrained, onFailure } = options;
  const { charter, train, evaluation, kept } = await openRun(store, config);
  const parameters = parameterLayout(charter.model).size;
  if (parameters * charter.inner.batch * charter.model.time >= SLOW_WORK) {
    const sentence = `Measuring a model of ${parameters.toLocaleString("en")} parameters; on this processor that takes a while, now and for each version …`;
    log.say("measuring", { parameters }, sentence);
  }
  const referee = await startReferee(charter, train, evaluation);
  closing(() => referee.close());
  void referee.died.then(onFailure);
  const crew = await startCrew(workersFor(parameters, config.mergeWorkers));
  closing(() => crew.close());
  void crew.died.then(onFailure);
  let beats: Beats | null = null;
  let edges: EdgeAcceptor | null = null;
  const host: CoordinatorHost = await createCoordinatorHost({
    store: among === null ? store : { ...store, log: toldLog(store.log, among.bus) },
    charter,
    clock: systemClock,
    rng: createSecretRng(),
    key,
    ...(among === null ? {} : { epoch: among.lease.epoch, known: among.known }),
    verify: verifySignature,
    hash: hashBytes,
    gate: { prefixShare: config.prefixShare, relays: () => 1 + (edges?.edges() ?? 0) },
    referee: metrics.watchReferee(referee),
    openCrew: () => crew,
    initial: () => initialParameters(charter.model),
    answerRtc: (sdp, attach, first) => (edges?.answererOf(first) ?? answerRtc)(sdp, attach),
    iceServers: await openIce(config.ice, systemClock),
    onEntry: (entry) => metrics.entry(entry),
    onFact: (fact) => metrics.fact(fact),
    onVersion: (version) => {
      log.version(version);
      onChange(version);
    },
    onChange: () => {
      onChange(null);
      beats?.tell();
    },
    onDrained,
    onFailure,
    log: (sentence) => log.debug(sentence),
  });
  closing(() => host.close());
  if (among !== null) {
    const { bus, lease, name } = among;
    const sweeping = setInterval(() => {
      store.sweep?.(CUT_OFF_MS).catch((error: unknown) => log.debug(messageIn(error)));
    }, CUT_OFF_MS);
    closing(() => clearInterval(sweeping));
    edges = await acceptEdges({
      bus,
      epoch: lease.epoch,
      attach: host.attach,
      linksMax: 2 * SESSIONS_MAX * RELAYS_MAX,
      onServed: (bytes) => host.countDownload(bytes),
    });
    closing(edges.close); // before the host, which would tell whoever comes back at once that it is busy
    beats = startBeats(bus, () => {
      const { round, phase, connected } = host.view();
      return { epoch: lease.epoch, leader: name, version: host.head().version, round, phase, connected };
    });
    closing(beats.stop);
  }
  return {
    host,
    kept,
    attach: host.attach,
    view: () => host.view(),
    isPublic: (digest) => host.isPublic(digest),
    countDownload: (bytes) => host.countDownload(bytes),
  };
}
