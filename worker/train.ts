/**
 * Entry point of the training worker, which owns the GPU and the session with the relay. It composes what others made: the
 * engine (`engine.ts`), the contributor (`contributor/run.ts`), links, store and device key; and it speaks the surface of
 * `ui/surface.ts` with the page. It starts nothing by itself.
 */
import { expose, transfer } from "comlink";
import { HeddleError, messageIn } from "../src/base/assert.ts";
import type { Digest } from "../src/base/bytes.ts";
import { keepEngine } from "../src/contributor/keeper.ts";
import type { PeerRtc } from "../src/contributor/peers.ts";
import { createContributor, type Contributor, type OpenRtc } from "../src/contributor/run.ts";
import type { ContributorView } from "../src/contributor/view.ts";
import { createWork, type Work } from "../src/contributor/work.ts";
import { createCorpus } from "../src/data/corpus.ts";
import { createPace } from "../src/engines/pace.ts";
import { openTunings } from "../src/engines/tunings.ts";
import { stepProgram } from "../src/model/trainer.ts";
import { loadDeviceKey, verifySignature } from "../src/net/device-key.ts";
import { createBlobFetcher, createPiecesFetcher } from "../src/net/http.ts";
import { answerRtcFromWorker, dialRtcFromWorker } from "../src/net/proxy.ts";
import { fetchRun } from "../src/net/run.ts";
import { createSecretRng } from "../src/net/secret-rng.ts";
import { systemClock } from "../src/net/system-clock.ts";
import { dialWebSocket } from "../src/net/ws-client.ts";
import type { RunView } from "../src/protocol/run-view.ts";
import { hashBytes } from "../src/store/hash.ts";
import { openIndexedDbStore } from "../src/store/indexeddb.ts";
import type { Store } from "../src/store/store.ts";
import type { LendRtc, Outcome, TrainOptions, TrainSurface } from "../src/ui/surface.ts";
import type { Engine, EngineKind } from "../src/tensor/engine.ts";
import { beginEngine, openEngine } from "./engine.ts";
import { createWriter, type Writer } from "./writer.ts";

interface Setting {
  readonly options: TrainOptions;
  readonly onView: (view: ContributorView) => void;
  readonly lend: LendRtc | null;
}

interface Session {
  readonly contributor: Contributor;
  readonly sentence: string;
}

let setting: Setting | undefined;
let session: { readonly run: Digest; readonly opened: Promise<Session> } | undefined;
let current: Contributor | undefined;
let writer: Writer | undefined;
/** Of the text that is being written, from the moment it was asked for. */
let writing = new AbortController();
let opening: Promise<Store> | undefined;
let duty = 0;
let peers = false;
const pace = createPace({ clock: systemClock, duty: () => duty });
/** The person's last words: a stop or a pause that comes while the engine is being chosen counts. */
let [wanted, paused] = [false, false];

const surface: TrainSurface = {
  open: (options, onView, lend) => {
    setting = { options, onView, lend };
    ({ duty, peers } = options);
  },
  start: (run) =>
    outcome(async () => {
      performance.mark("heddle start");
      wanted = true;
      session ??= { run, opened: openSession(known(setting), run) };
      if (session.run !== run) {
        throw new HeddleError("consent", "Cannot take part: this program was started for another run");
      }
      try {
        const { contributor, sentence } = await session.opened;
        if (wanted) {
          contributor.start();
          if (paused) {
            contributor.pause();
          }
        }
        return sentence;
      } catch (error) {
        session = undefined; // so that another start tries again
        throw error;
      }
    }),
  pause: () => {
    paused = true;
    current?.pause();
  },
  resume: () => {
    paused = false;
    current?.resume();
  },
  stop: async () => {
    [wanted, paused] = [false, false];
    await current?.stop();
  },
  setDuty: (next) => {
    duty = next;
    current?.setDuty(next);
  },
  setPeers: (on) => {
    peers = on;
    current?.setPeers(on);
  },
  setFrames: (gapMs) => pace.setFrames(gapMs),
  generate: (options, onText) =>
    outcome(async () => {
      const { relay, engine } = known(setting).options;
      writing.abort();
      writing = new AbortController();
      const { signal } = writing;
      // Writing needs no store: where the browser refuses one, the engine's choices are made again each time.
      const tunings = await openStore().then(
        ({ keys }) => openTunings(keys),
        () => undefined,
      );
      writer ??= createWriter(engine, createBlobFetcher({ origin: relay }), tunings);
      return writer.write(options, await lookUpRun(relay), { signal, onText: (text) => void onText(text) });
    }),
  abort: () => writing.abort(),
};

expose(surface);
// The page hears of errors alone (`ui/bridge.ts`): without this, work that fails where nobody waits for it would end in silence.
addEventListener("unhandledrejection", ({ reason }) => reportError(reason));

/** One for this worker's life: training and writing share it. */
function openStore(): Promise<Store> {
  opening ??= openIndexedDbStore("heddle").catch((error: unknown) => {
    opening = undefined; // so that another start tries again
    throw error;
  });
  return opening;
}

async function openSession({ options, onView, lend }: Setting, agreed: Digest): Promise<Session> {
  const { relay, agent } = options;
  const [{ run, charter }, key, store] = await Promise.all([lookUpRun(relay), loadDeviceKey(), openStore()]);
  if (run !== agreed) {
    throw new HeddleError("consent", "The relay serves another run now than the one that was agreed to");
  }
  const program = stepProgram(charter.model, charter.inner);
  const tunings = openTunings(store.keys);
  const instead = stepProgram(charter.model, charter.inner, { recompute: true });
  const opening = { instead, output: "loss", pace, tunings };
  const begun = await beginEngine(options.engine, program, opening);
  performance.mark("heddle engine");
  const { kind, device } = begun.engine;
  const keeper = keepEngine(begun, (next, inTurn) => openEngine(next, program, opening, inTurn));
  const contributor = createContributor({
    dial: (attach) => dialWebSocket({ url: `${relay.replace(/^http/, "ws")}/link`, attach }),
    ...(lend === null ? {} : { openRtc: borrowRtc(lend), peerRtc: borrowPeerRtc(lend) }),
    peers,
    fetchBlob: createBlobFetcher({ origin: relay }),
    fetchPieces: createPiecesFetcher({ origin: relay }),
    store,
    clock: systemClock,
    rng: createSecretRng(),
    key,
    verify: verifySignature,
    hash: hashBytes,
    engine: { kind, device, sentence: begun.sentence },
    createWork: ({ charter: agreed, contributor: name, texts, losses, onEngine }) => {
      const corpus = createCorpus(texts);
      const make = async (engine: Engine): Promise<Work> => {
        const work = await createWork({ engine, charter: agreed, contributor: name, corpus, clock: systemClock, pace });
        return marked(work, engine.kind);
      };
      return keeper.use(losses, make, onEngine);
    },
    agent,
    run,
    onView,
    duty,
  });
  current = contributor;
  return { contributor, sentence: begun.sentence };
}

/** Notes in the browser's timeline when `work` was ready and when its first step was done; `npm run bench start` reads the marks. */
function marked(work: Work, kind: EngineKind): Work {
  performance.mark(`heddle compiled ${kind}`);
  let trained = false;
  return {
    ...work,
    train: (assignment, base, job) => {
      const onStep: typeof job.onStep = (step) => {
        if (!trained) {
          performance.mark(`heddle step ${kind}`);
        }
        trained = true;
        job.onStep(step);
      };
      return work.train(assignment, base, { ...job, onStep });
    },
    [Symbol.dispose]: () => work[Symbol.dispose](),
  };
}

/** The page makes the connection, because workers have none, and serves its link over a port. */
function borrowRtc(lend: LendRtc): OpenRtc {
  return (options) => dialRtcFromWorker(borrowPort(lend), options);
}

function borrowPeerRtc(lend: LendRtc): PeerRtc {
  return {
    dial: (options) => dialRtcFromWorker(borrowPort(lend), { ...options, gathers: true }),
    answer: (options) => answerRtcFromWorker(borrowPort(lend), options),
  };
}

function borrowPort(lend: LendRtc): MessagePort {
  const { port1, port2 } = new MessageChannel();
  lend(transfer(port2, [port2]));
  return port1;
}

async function lookUpRun(relay: string): Promise<RunView> {
  const run = await fetchRun(relay, { versions: 1 });
  if (run === undefined) {
    throw new HeddleError("unreachable", "Cannot look up the run: the relay does not answer");
  }
  return run;
}

function known(given: Setting | undefined): Setting {
  if (given === undefined) {
    throw new HeddleError("bad-input", "Cannot start: the worker was not opened");
  }
  return given;
}

async function outcome(work: () => Promise<string>): Promise<Outcome> {
  try {
    return { ok: true, sentence: await work() };
  } catch (error) {
    const code = error instanceof HeddleError ? error.code : "unknown";
    return { ok: false, code, message: messageIn(error) };
  }
}
