/**
 * The page's end of the training worker: starts it, wraps its surface, and lends it WebRTC connections, which do not exist in
 * workers. Imported by the page and the widget only when the worker is first needed.
 */
import { messageIn } from "../base/assert.ts";
import { proxy, wrap, type Remote } from "comlink";
import type { Digest } from "../base/bytes.ts";
import type { ContributorView } from "../contributor/view.ts";
import { watchFrames } from "./frames.ts";
import { lendRtc } from "./lend.ts";
import type { GenerateOptions, Outcome, TrainOptions, TrainSurface } from "./surface.ts";

export interface Trainer {
  /** Takes part in `run`, to which the person agreed. */
  start(run: Digest): Promise<Outcome>;
  pause(): void;
  resume(): void;
  stop(): void;
  setDuty(duty: number): void;
  setPeers(on: boolean): void;
  generate(options: GenerateOptions, onText: (text: string) => void): Promise<Outcome>;
  abort(): void;
  /** The page goes away: says goodbye to the relay; best effort. */
  leave(): void;
  /** Ends the worker at once, and with a failure what still waits for it. */
  close(): void;
}

export function openTrainer(
  options: TrainOptions,
  onView: (view: ContributorView) => void,
  onCrash: (message: string) => void,
): Trainer {
  const worker = new Worker(new URL("../../worker/train.ts", import.meta.url), { type: "module", name: "heddle" });
  const remote: Remote<TrainSurface> = wrap<TrainSurface>(worker);
  let unwatch = (): void => {};
  /** The last of start and stop that the person asked for: an engine takes seconds to open, and a stop may come meanwhile. */
  let wanted = false;
  // Calls to a worker that has ended are never answered.
  let giveUp: (outcome: Outcome) => void = () => {};
  const ended = new Promise<Outcome>((resolve) => {
    giveUp = resolve;
  });
  const end = (message: string): void => {
    wanted = false;
    unwatch();
    worker.terminate();
    giveUp({ ok: false, code: "unknown", message });
  };
  const crash = (message: string): void => {
    end(message);
    onCrash(message);
  };
  worker.addEventListener("error", (event) => {
    crash(
      event.message === ""
        ? "The training program could not be loaded"
        : `The training program stopped: ${event.message}`,
    );
  });
  const rtc = typeof RTCPeerConnection === "function";
  const opened = remote.open(options, proxy(shown(onView)), rtc ? proxy(lendRtc) : null);
  const tell = (call: () => Promise<unknown>): void => {
    opened.then(call).catch((error: unknown) => crash(messageIn(error)));
  };
  const ask = async (call: () => Promise<Outcome>): Promise<Outcome> => {
    try {
      return await Promise.race([opened.then(call), ended]);
    } catch (error) {
      return { ok: false, code: "unknown", message: messageIn(error) };
    }
  };
  return {
    start: async (run) => {
      wanted = true;
      const outcome = await ask(() => remote.start(run));
      unwatch();
      if (outcome.ok && wanted) {
        unwatch = watchFrames((gapMs) => tell(() => remote.setFrames(gapMs)));
      }
      return outcome;
    },
    pause: () => tell(() => remote.pause()),
    resume: () => tell(() => remote.resume()),
    stop: () => {
      wanted = false;
      unwatch();
      tell(() => remote.stop());
    },
    setDuty: (duty) => tell(() => remote.setDuty(duty)),
    setPeers: (on) => tell(() => remote.setPeers(on)),
    generate: (request, onText) => ask(() => remote.generate(request, proxy(shown(onText)))),
    abort: () => tell(() => remote.abort()),
    leave: () => tell(() => remote.stop()),
    close: () => end("The training program was closed"),
  };
}

/** What the page draws may fail, and is reported there: passed back to the worker, it would end the training. */
function shown<T>(draw: (what: T) => void): (what: T) => void {
  return (what) => {
    try {
      draw(what);
    } catch (error) {
      reportError(error);
    }
  };
}
