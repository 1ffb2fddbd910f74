/**
 * One relay process: its store, its operator's faces, and the part it has in its run. Alone it leads. Among several that share a
 * NATS all serve contributors, one of them leads, and each would take the lead when that ends (`lead.ts`, `follow.ts`).
 */
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { endingOf, exitCodeOf, HeddleError, messageIn } from "../base/assert.ts";
import { sleep } from "../base/clock.ts";
import { createStop } from "../base/stop.ts";
import { createTurn } from "../base/turn.ts";
import type { AnswerRtc } from "../net/bus-link.ts";
import { loadDeviceKey, loadStoredKey } from "../net/device-key-node.ts";
import { systemClock } from "../net/system-clock.ts";
import type { RunView, VersionView } from "../protocol/run-view.ts";
import { openNatsBus } from "../store/bus-nats.ts";
import type { Bus } from "../store/bus.ts";
import { createHotBlobs } from "../store/hot-blobs.ts";
import { acquireLease } from "../store/lease.ts";
import type { Blobs } from "../store/store.ts";
import type { Closers } from "./closers.ts";
import type { RelayConfig } from "./config.ts";
import { CANDIDATE_SUBJECT, follow, type FollowedRun, type Following } from "./follow.ts";
import { openFront, type Front, type Source } from "./front.ts";
import { listen, shut } from "./http.ts";
import { lead, type LeadOptions, type Leading } from "./lead.ts";
import type { Log } from "./log.ts";
import { createMetrics, type Watched } from "./metrics.ts";
import { createOperatorFace, operationsIn, whyUnready, type Standing } from "./operator-face.ts";
import { operationsOf } from "./operations.ts";
import { answerOperators, operationsOfEdge } from "./operator-bus.ts";
import { listenOnSocket } from "./operator-socket.ts";
import { KEY_FILE, LEADER_KEY, openPlace, type PlacedStore } from "./place.ts";

/** An operator who has the relay drained gets an answer before it ends. */
const ANSWER_MS = 1_000;
/** Another relay has so long to say that it would take the lead. */
const CANDIDATE_MS = 1_000;
/** A relay that ends waits so long for itself to have the lead, which it then gives up: else the next would wait for a lease that nobody renews. */
const TAKING_MS_MAX = 3_000;
const STOPPING = "The relay is stopping; it will be back";

/** Why the relay ends. */
export interface End {
  readonly reason: string;
  readonly code: 0 | 1 | 2;
}

export interface RelayOptions {
  readonly config: RelayConfig;
  readonly log: Log;
  /** Close them, and the relay has ended. */
  readonly closers: Closers;
  /** The relay has to end. May be called again. */
  readonly stop: (end: End) => void;
  /** Folder of the built page. */
  readonly dist: string;
  /** The ports are open: called once. `kept`: this process leads a run that was there before. */
  readonly onListening: (at: {
    readonly port: number;
    readonly view: RunView;
    readonly kept: boolean;
  }) => Promise<void>;
}

export class Relay {
  readonly #options: RelayOptions;
  readonly #metrics = createMetrics();
  /** Names this process to people. */
  readonly #name = `process ${process.pid} on ${hostname()}`;
  /** A leader may be heard for the first time just when this relay gets the lease. */
  readonly #inTurn = createTurn();
  #standing: Standing = { type: "loading" };
  /** Those of the store, for all who serve the run or lead it; operators look at the store itself. */
  #blobs: Blobs | null = null;
  #front: Front | null = null;
  #role: Leading | Following | null = null;
  readonly #ending = createStop();
  /** Settles when this relay has the lead that it is taking, or takes none. */
  #taking: Promise<unknown> = Promise.resolve();

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  /** Resolves when this relay leads, or has ended. */
  async serve(): Promise<void> {
    const { config, closers, log } = this.#options;
    const metrics = this.#metrics;
    const unready = (): Promise<string | null> => whyUnready(this.#standing);
    const operators = createOperatorFace({ metrics, unready });
    if (config.metricsPort !== 0) {
      await listen(operators, config.metricsPort, config.metricsHost, "--metrics-port");
    }
    const place = await openPlace(config, { onWarning: (sentence) => log.warn("store", {}, sentence) });
    closers.add(() => place.close());
    const store = metrics.watchStore(place);
    const socket = createOperatorFace({ metrics, unready, operations: () => operationsIn(this.#standing) });
    closers.add(() => shut(socket, ANSWER_MS)); // late: who has it drained takes that for its end
    closers.add(() => shut(operators, ANSWER_MS));
    await listenOnSocket(socket, config.dir).catch((error: unknown) => {
      // The run does not depend on it: a folder's path may be too long, a system may have no such sockets.
      log.warn("operator", {}, `${endingOf(error).sentence}; "npm run admin" cannot reach this relay`);
    });
    const bus = config.nats === null ? null : await openNatsBus(config.nats);
    closers.add(() => bus?.close());
    // Links end with a sentence, and the lease is given up, before the ports are gone: whoever takes over must not wait.
    closers.add(() => this.#front?.close(STOPPING));
    closers.add(() => this.#leave());
    closers.add(() => this.#front?.shut(STOPPING));
    await (bus === null ? this.#serveAlone(store) : this.#serveAmong(store, bus));
  }

  async #serveAlone(store: PlacedStore): Promise<void> {
    const key = await loadDeviceKey(join(this.#options.config.dir, KEY_FILE));
    await this.#lead({ store, key, among: null });
  }

  /** Gives up its part in the run, and one that it is about to have. */
  async #leave(): Promise<void> {
    this.#ending.abort();
    await Promise.race([this.#taking, sleep(systemClock, TAKING_MS_MAX)]);
    await this.#role?.close(STOPPING);
  }

  /** Follows whoever leads until this relay has the lease. */
  async #serveAmong(store: PlacedStore, bus: Bus): Promise<void> {
    const { log } = this.#options;
    this.#metrics.lead(false);
    const following = await follow({
      bus,
      store,
      name: this.#name,
      answerRtc: this.#answerRtc,
      onReady: (run) => this.#follow(store, bus, run),
      onChange: (version) => {
        if (version !== null) {
          log.version(version);
        }
        this.#announce(version);
      },
      onFailure: (error) => this.#fail(error),
      log: (sentence) => log.debug(sentence),
    });
    this.#role = following;
    const acquiring = acquireLease({
      keys: store.keys,
      key: LEADER_KEY,
      clock: systemClock,
      holder: this.#name,
      stop: this.#ending,
      onWait: (leader) => {
        log.say(
          "following",
          { leader },
          `This run is led by ${leader}; this relay serves it, too, and would take over.`,
        );
        this.#standing = this.#standing.type === "loading" ? { type: "waiting", leader } : this.#standing;
      },
    });
    const leading = acquiring.then(async (lease) => {
      following.turnAway();
      void lease.lost.then((reason) => {
        this.#metrics.lead(false);
        this.#fail(new Error(reason));
      });
      const key = await loadStoredKey(store.keys, KEY_FILE);
      await this.#lead({ store, key, among: { bus, lease, name: this.#name, known: following.fold() } });
    });
    this.#taking = leading.catch(() => undefined);
    await leading;
    await following.close("This relay leads the run now; come back");
  }

  /** A leader was heard: this relay is an edge. */
  async #follow(store: PlacedStore, bus: Bus, run: FollowedRun): Promise<void> {
    if (this.#role !== null && "host" in this.#role) {
      return;
    }
    this.#watch({ view: run.view, operatorView: run.operatorView, countTraffic: () => undefined });
    const { dir } = this.#options.config;
    const drain = (): void => this.#stopSoon("the relay is drained");
    const operations = operationsOfEdge({ bus, store, dir, drain, leader: run.leader });
    this.#standing = { type: "serving", host: run, store, operations };
    await this.#serveFrom(store, run, false);
  }

  async #lead({ store, key, among }: Pick<LeadOptions, "store" | "key" | "among">): Promise<void> {
    const { config, closers, log, stop } = this.#options;
    const leading = await lead({
      config,
      log,
      store: this.#heated(store),
      metrics: this.#metrics,
      key,
      among,
      answerRtc: this.#answerRtc,
      onChange: (version) => this.#announce(version),
      onDrained: () => stop({ reason: "the relay is drained", code: 0 }),
      onFailure: (error) => this.#fail(error),
    });
    this.#role = leading;
    if (this.#ending.aborted) {
      return;
    }
    const { host } = leading;
    const { charter } = leading.view();
    this.#watch({
      view: leading.view,
      operatorView: () => host.operatorView(),
      countTraffic: () => host.countTraffic(),
    });
    this.#metrics.lead(true);
    const handOver = async (): Promise<boolean> => {
      const other = among === null ? null : await successorOn(among.bus);
      if (other !== null) {
        this.#stopSoon(`the run goes on at ${other}`);
      }
      return other !== null;
    };
    const operations = operationsOf({ dir: config.dir, host, store, charter, handOver });
    this.#standing = { type: "serving", host, store, operations };
    if (among !== null) {
      const { bus, lease } = among;
      const onFailure = (why: string): void =>
        log.warn("operator", { error: why }, `An operator got no answer: ${why}`);
      closers.add(await answerOperators({ bus, epoch: lease.epoch, key, operations: () => operations, onFailure }));
      log.say("leading", { epoch: lease.epoch }, "This relay leads the run now.");
    }
    await this.#serveFrom(store, leading, leading.kept);
  }

  /** Opens the ports when there is a run to serve for the first time, and turns them to who serves it later. */
  #serveFrom(store: PlacedStore, source: Source, kept: boolean): Promise<void> {
    return this.#inTurn(() => this.#open(store, source, kept));
  }

  async #open(store: PlacedStore, source: Source, kept: boolean): Promise<void> {
    if (this.#front !== null) {
      this.#front.turnTo(source);
      return;
    }
    const { config, dist, onListening } = this.#options;
    const onDownload = (bytes: number): void => this.#metrics.download(bytes);
    this.#front = await openFront({ config, dist, store: this.#heated(store), source, onDownload });
    await onListening({ port: this.#front.port, view: source.view(), kept });
  }

  #heated(store: PlacedStore): PlacedStore {
    this.#blobs ??= createHotBlobs(store.blobs);
    return { ...store, blobs: this.#blobs };
  }

  readonly #answerRtc: AnswerRtc = (sdp, attach) => {
    if (this.#front === null) {
      return Promise.reject(new HeddleError("unreachable", "Cannot answer an offer: the relay is starting"));
    }
    return this.#front.answerRtc(sdp, attach);
  };

  #watch(watched: Omit<Watched, "lanes">): void {
    this.#metrics.watch({ ...watched, lanes: () => this.#front?.lanes() ?? { memory: 0, ws: 0, rtc: 0 } });
  }

  #announce(version: VersionView | null): void {
    const { config, stop } = this.#options;
    this.#front?.announce(version);
    if (version !== null && config.untilVersion > 0 && version.version >= config.untilVersion) {
      stop({ reason: `version ${version.version} was reached`, code: 0 });
    }
  }

  /** When whoever asked for it has been answered. */
  #stopSoon(reason: string): void {
    setImmediate(() => this.#options.stop({ reason, code: 0 }));
  }

  #fail(error: unknown): void {
    const { log, stop } = this.#options;
    const why = messageIn(error);
    if (this.#ending.aborted) {
      log.debug(`While the relay ends: ${why}`); // as a lead that it was still taking says when the store is closed
      return;
    }
    log.fail("failing", { error: why }, `The relay cannot go on: ${why}`);
    stop({ reason: "the relay cannot go on", code: exitCodeOf(error) });
  }
}

/** A relay that would take the lead; null when there is none. */
async function successorOn(bus: Bus): Promise<string | null> {
  try {
    return new TextDecoder().decode(await bus.request(CANDIDATE_SUBJECT, new Uint8Array(), CANDIDATE_MS));
  } catch (error) {
    if (error instanceof HeddleError && error.code === "unreachable") {
      return null;
    }
    throw error;
  }
}
