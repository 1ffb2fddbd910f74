/**
 * The headless contributor under Node and Deno: chooses the engine, opens its folder and key, and runs the same session as
 * the page does. What it prints is the projection that the page shows.
 */
import { join } from "node:path";
import process from "node:process";
import { HeddleError } from "../base/assert.ts";
import { toHex } from "../base/bytes.ts";
import { keepEngine } from "../contributor/keeper.ts";
import { createContributor, type Contributor, type Met, type OpenRtc } from "../contributor/run.ts";
import type { PeerRtc } from "../contributor/peers.ts";
import { PRIVATE_TERMS } from "../contributor/terms.ts";
import type { ContributionView, ContributorView } from "../contributor/view.ts";
import { createWork, type Work } from "../contributor/work.ts";
import { createCorpus, type Corpus } from "../data/corpus.ts";
import type { WantedEngine } from "../engines/choose.ts";
import { beginEngine, openEngine, type OpenEngineOptions } from "../engines/open.ts";
import { createPace, type Neighbour } from "../engines/pace.ts";
import { openTunings, type Tunings } from "../engines/tunings.ts";
import { stepProgram } from "../model/trainer.ts";
import { verifySignature } from "../net/device-key.ts";
import { loadDeviceKey } from "../net/device-key-node.ts";
import { createBlobFetcher, createPiecesFetcher } from "../net/http.ts";
import { fetchRun } from "../net/run.ts";
import { createSecretRng } from "../net/secret-rng.ts";
import { systemClock } from "../net/system-clock.ts";
import { dialWebSocket } from "../net/ws-client.ts";
import type { Charter } from "../protocol/charter.ts";
import { SAMPLE_INNER, SAMPLE_MODEL } from "../protocol/sample.ts";
import { hashBytes } from "../store/hash.ts";
import { openEmbeddedStore } from "../store/embedded.ts";
import type { Engine } from "../tensor/engine.ts";
import { keepAgreement } from "./agreement.ts";
import type { ContributeConfig } from "./config.ts";
import { headlessGpu } from "./gpu.ts";
import { dialOrSayWhy } from "./reach.ts";
import { readPrivateCorpus } from "./private-data.ts";
import { reloadingFetch } from "./reload.ts";

/** Whoever is asked to stop within a round gives what it has made of it, where that takes no longer. */
const FINISH_MS_MAX = 7_000;

/** Contributes until `stop` resolves. Throws HeddleError with a sentence when it cannot begin. */
export async function contribute(
  config: ContributeConfig,
  stop: Promise<void>,
  print: (text: string) => void,
): Promise<void> {
  const say = printer(config.json, print);
  const store = await openEmbeddedStore(config.dir).catch(hintName);
  const key = await loadDeviceKey(join(config.dir, "device.key"));
  const privateCorpus = config.privateData === null ? undefined : await readPrivateCorpus(config.privateData);
  const pace = createPace({ clock: systemClock, duty: () => config.duty });
  const tunings = openTunings(store.keys);
  const opening = (wanted: WantedEngine): Promise<OpenEngineOptions> => optionsFor(config, wanted, { pace, tunings });
  const begun = await Promise.race([opening(config.engine).then(beginEngine), stop]);
  if (begun === undefined) {
    await store.close();
    return; // asked to stop while the machine's engines were tried
  }
  const { kind, device } = begun.engine;
  using keeper = keepEngine(begun, async (wanted, inTurn) => openEngine(await opening(wanted), inTurn));
  if (privateCorpus !== undefined) {
    say.private(privateCorpus);
  }
  const agree = keepAgreement({
    keys: store.keys,
    relayKey: config.relayKey,
    run: config.run,
    remembers: privateCorpus !== undefined,
    onRemembered: say.agreed,
  });
  const rtc = config.rtc || config.peers ? await rtcOpener() : undefined;
  const url = `${config.relay.replace(/^http/, "ws")}/link`;
  const contributor: Contributor = createContributor({
    dial: (attach) => dialOrSayWhy(config.relay, () => dialWebSocket({ url, attach })),
    ...(rtc === undefined || !config.rtc ? {} : { openRtc: rtc.openRtc }),
    ...(rtc === undefined ? {} : { peerRtc: rtc.peerRtc }),
    peers: config.peers,
    fetchBlob: createBlobFetcher({ origin: config.relay, fetch: reloadingFetch }),
    fetchPieces: createPiecesFetcher({ origin: config.relay }),
    store,
    origin: config.relay,
    clock: systemClock,
    rng: createSecretRng(),
    key,
    verify: verifySignature,
    hash: hashBytes,
    engine: { kind, device, sentence: begun.sentence },
    createWork: ({ charter, contributor: name, texts, losses, onEngine }) => {
      const make = (engine: Engine): Promise<Work> =>
        createWork({
          engine,
          charter,
          contributor: name,
          corpus: createCorpus(texts),
          ...(privateCorpus === undefined ? {} : { privateCorpus }),
          clock: systemClock,
          pace,
        });
      return keeper.use(losses, make, onEngine);
    },
    agent: `heddle-headless/${config.runtime}`,
    privateData: privateCorpus !== undefined,
    ...(privateCorpus === undefined ? {} : { terms: PRIVATE_TERMS }),
    agree: async (met) => {
      await agree(met);
      checkLength(privateCorpus, met.charter);
    },
    onView: say.view,
    duty: config.duty,
  });
  contributor.start();
  await Promise.race([stop, failure(contributor)]);
  await (config.finish ? contributor.finish(FINISH_MS_MAX) : undefined);
  await contributor.stop();
  await store.close();
}

/** Throws HeddleError "bad-input" for private texts that are shorter than one window of the run. */
function checkLength(corpus: Corpus | undefined, { model }: Charter): void {
  if (corpus !== undefined && corpus.tokens <= model.time) {
    throw new HeddleError(
      "bad-input",
      `Cannot train on the private text: it has ${corpus.tokens} bytes, and this run needs at least ${model.time + 1}`,
    );
  }
}

/** Two contributors on one machine want a name each. */
function hintName(error: unknown): never {
  if (error instanceof HeddleError && error.message.includes("in use")) {
    throw new HeddleError("store", `${error.message}; give this contributor a --name of its own`, { cause: error });
  }
  throw error;
}

async function optionsFor(
  config: ContributeConfig,
  wanted: WantedEngine,
  { pace, tunings }: { readonly pace: Neighbour; readonly tunings: Tunings },
): Promise<OpenEngineOptions> {
  const { threads, debug } = config;
  const onPlan = debug >= 2 ? (text: string): boolean => process.stderr.write(`${text}\n`) : undefined;
  if (wanted === "wasm") {
    return { wanted, wasmOptions: { threads }, onPlan };
  }
  const { model, inner } = await modelOfRun(config.relay);
  const instead = stepProgram(model, inner, { recompute: true });
  const work = { program: stepProgram(model, inner), instead, output: "loss" };
  return {
    wanted,
    gpu: await headlessGpu(),
    work,
    gpuOptions: { pace },
    wasmOptions: { threads },
    tunings,
    onPlan,
  };
}

/** What the run trains; the sample run's sizes while the relay does not answer. */
async function modelOfRun(relay: string): Promise<Pick<Charter, "model" | "inner">> {
  const run = await fetchRun(relay, { versions: 1 });
  return run === undefined ? { model: SAMPLE_MODEL, inner: SAMPLE_INNER } : run.charter;
}

/** WebRTC by node-datachannel, or undefined where its binary does not load. */
async function rtcOpener(): Promise<{ readonly openRtc: OpenRtc; readonly peerRtc: PeerRtc } | undefined> {
  const lane = await import("../net/rtc-node.ts").catch(() => undefined);
  if (lane === undefined) {
    return undefined;
  }
  const { dialRtcNode, answerRtcNode } = lane;
  return {
    openRtc: (options) => dialRtcNode(options),
    peerRtc: { dial: (options) => dialRtcNode({ ...options, gathers: true }), answer: answerRtcNode },
  };
}

/** Rejects with the sentence when the session cannot go on without the person. */
function failure(contributor: Contributor): Promise<never> {
  return new Promise((_resolve, reject) => {
    const timer = setInterval(() => {
      const failed = contributor.failure();
      if (failed !== null) {
        clearInterval(timer);
        reject(new HeddleError(failed.code, failed.sentence));
      }
    }, 500);
    timer.unref();
  });
}

interface Printer {
  private(corpus: Corpus): void;
  agreed(met: Pick<Met, "relay" | "run">): void;
  view(view: ContributorView): void;
}

/** One line for each change of status, each contribution and each verdict; as JSON also for each version of the base that it has. */
function printer(json: boolean, print: (text: string) => void): Printer {
  let [shown, computing, exchanged] = ["", "", ""];
  const outage = new Set<string>();
  const told = new Map<string, string>();
  const say = (event: string, fields: object, sentence: string): void => {
    print(json ? `${JSON.stringify({ event, ...fields })}\n` : `${sentence}\n`);
  };
  const tell = (contribution: ContributionView): void => {
    if (told.get(contribution.id) !== contribution.sentence) {
      told.set(contribution.id, contribution.sentence);
      const { round, steps, loss, wireBytes, sentence } = contribution;
      const words = `Round ${round}: ${steps} steps, loss ${loss.toFixed(4)}, ${wireBytes} bytes. ${sentence}`;
      say(contribution.verdict === null ? "contribution" : "verdict", contribution, words);
    }
  };
  return {
    private: ({ shards, tokens }) => {
      const files = shards.length;
      say(
        "private",
        { files, bytes: tokens },
        `Training on ${files} ${files === 1 ? "file" : "files"}, ${tokens} bytes.`,
      );
    },
    agreed: ({ relay, run }) => {
      const key = toHex(relay);
      const sentence = `Remembered: the run ${run} of the relay with the key ${key}. Another one needs --run or --relay-key.`;
      say("agreed", { relay: key, run }, sentence);
    },
    view: (view) => {
      const { engine: kind, device, engineSentence } = view;
      if (engineSentence !== computing) {
        computing = engineSentence;
        say("engine", { kind, device, sentence: engineSentence }, engineSentence);
      }
      const { bytesServed, bytesFetched, serving, sentence: came } = view.peers;
      if (serving === 0 && `${bytesServed} ${came}` !== exchanged) {
        exchanged = `${bytesServed} ${came}`;
        if (exchanged !== "0 ") {
          const words = `Other volunteers: ${bytesServed} bytes sent to them, ${bytesFetched} got from them. ${came}`;
          say("peers", view.peers, words.trim());
        }
      }
      const sentence = view.sentence.replace(
        /^Connecting again(?: in \d+ s)?/,
        "No connection yet; trying until there is one",
      );
      const key = `${view.status} ${sentence} ${view.lane} ${json ? view.version : ""}`;
      if (view.status !== "connecting") {
        outage.clear();
      }
      if (key !== shown && !outage.has(sentence)) {
        shown = key;
        if (view.status === "connecting") {
          outage.add(sentence); // said once an outage, not at every attempt
        }
        const { contributions: _listed, ...rest } = view;
        const speed = view.tokensPerS > 0 ? ` (${Math.round(view.tokensPerS)} tokens/s)` : "";
        if (json || view.status !== "failed") {
          // a failure's sentence is the error that ends the process
          say("status", { ...rest, sentence }, `${sentence}${speed}`);
        }
      }
      for (const contribution of [...view.contributions].reverse()) {
        tell(contribution);
      }
    },
  };
}
