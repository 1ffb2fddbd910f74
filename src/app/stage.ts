/**
 * What the page says and offers, as a pure function of everything it knows: one sentence, one hint, one main button and at
 * most one other. All words about states, failures and what to do stand here and nowhere else.
 */
import type { ContributorView } from "../contributor/view.ts";
import { asSentence, formatCount } from "../ui/format.ts";
import { isBetweenRounds, takesPart, withoutCountdown } from "../ui/part.ts";

export interface Facts {
  readonly online: boolean;
  /** Opened over https or on localhost: elsewhere browsers give neither keys nor the GPU. */
  readonly secure: boolean;
  /** The run's public record: not here yet, live, or cut off. */
  readonly feed: "loading" | "live" | "lost";
  readonly contributors: number;
  readonly trainer:
    | { readonly type: "none" }
    | { readonly type: "opening" }
    | { readonly type: "open" }
    | { readonly type: "failed"; readonly code: string; readonly message: string };
  readonly view: Pick<ContributorView, "status" | "sentence" | "tokensTotal"> | null;
  /** An agreement that covers this run is kept on this device. */
  readonly agreed: boolean;
  /** Was contributing before a reload, and the agreement still covers this run. */
  readonly resumable: boolean;
  /** The work here has ended because the agreement did: its time is over, or it was taken back in another tab. */
  readonly ended: boolean;
  /** Another tab of this browser works already. */
  readonly elsewhere: boolean;
}

export type Act = "contribute" | "pause" | "resume" | "stop" | "retry" | "withdraw";

interface Offer {
  readonly act: Act;
  readonly words: string;
}

export interface Stage {
  readonly mood: "idle" | "busy" | "working" | "paused" | "trouble";
  /** What happens now. */
  readonly sentence: string;
  /** What to know or do; may be empty. */
  readonly hint: string;
  readonly main: Offer | null;
  readonly other: Offer | null;
}

const STOP: Offer = { act: "stop", words: "Stop" };
const WITHDRAW: Offer = { act: "withdraw", words: "Take back my agreement" };
const RUNNING_HINT =
  "It goes on while you use other tabs; a phone may suspend it. Pause, Stop or closing this tab ends it at once.";

const ENDED = "Your agreement has ended, so this device has stopped.";
const RELOADED = "You were contributing before this page was reloaded.";

/**
 * What a screen reader is told of a stage. It is the same from round to round, and however many others come and go: it changes when this
 * device begins, pauses or ends, and when something is wrong.
 */
export function spoken({ mood, sentence }: Stage): string {
  switch (mood) {
    case "idle":
      return sentence === ENDED || sentence === RELOADED ? sentence : "Nothing runs on this device.";
    case "working":
      return "This device is contributing.";
    case "busy":
    case "paused":
    case "trouble":
      return withoutCountdown(sentence);
    default:
      return mood satisfies never;
  }
}

export function stageOf(facts: Facts): Stage {
  const { trainer, view } = facts;
  if (trainer.type === "failed") {
    return failed(trainer.code, trainer.message);
  }
  if (trainer.type === "opening") {
    return {
      mood: "busy",
      sentence: "Getting this device ready: starting an engine.",
      hint: "This takes a few seconds the first time.",
      main: null,
      other: STOP,
    };
  }
  if (trainer.type === "open" && view !== null && view.status !== "stopped") {
    return working(view, facts);
  }
  return idle(facts);
}

function idle(facts: Facts): Stage {
  if (!facts.secure) {
    return {
      mood: "trouble",
      sentence: "From this address you can watch the run, but not contribute.",
      hint: "Browsers give the GPU and signing keys only to pages opened over https, or on the relay’s own machine at localhost. Open this page that way to contribute.",
      main: null,
      other: null,
    };
  }
  const contribute: Offer = { act: "contribute", words: facts.resumable ? "Continue contributing" : "Contribute" };
  if (facts.elsewhere) {
    return {
      mood: "trouble",
      sentence: "Heddle already works in another tab of this browser.",
      hint: "One tab is enough: two would only share the same device. Close the other tab to contribute from here.",
      main: { act: "retry", words: "Check again" },
      other: null,
    };
  }
  if (isOffline(facts)) {
    return {
      mood: "trouble",
      sentence: "This device is offline.",
      hint: "This page opens without a connection, but the run needs one. It goes on by itself when you are online.",
      main: null,
      other: null,
    };
  }
  if (facts.feed === "loading") {
    return { mood: "busy", sentence: "Looking up the run …", hint: "", main: null, other: null };
  }
  if (facts.feed === "lost") {
    return {
      mood: "trouble",
      sentence: "The relay does not answer.",
      hint: "It may be restarting, or the network is in the way. This page keeps trying; nothing is lost in the meantime.",
      main: { act: "retry", words: "Try again" },
      other: null,
    };
  }
  if (facts.resumable) {
    return {
      mood: "idle",
      sentence: RELOADED,
      hint: "Nothing runs until you press the button.",
      main: contribute,
      other: WITHDRAW,
    };
  }
  return {
    mood: "idle",
    sentence: facts.ended ? ENDED : invitation(facts.contributors),
    hint: facts.agreed
      ? "You have agreed on this device, so the button starts at once."
      : "Nothing runs until you press the button and agree.",
    main: contribute,
    other: facts.agreed ? WITHDRAW : null,
  };
}

function invitation(contributors: number): string {
  switch (contributors) {
    case 0:
      return "No device is contributing right now. Yours would be the first.";
    case 1:
      return "One device is contributing right now. Yours would be the second.";
    default:
      return `${formatCount(contributors)} devices are contributing right now. Yours can join them.`;
  }
}

/** A relay on the same machine needs no network. */
function isOffline({ online, feed }: Facts): boolean {
  return !online && feed !== "live";
}

function working(view: NonNullable<Facts["view"]>, facts: Facts): Stage {
  const offline = isOffline(facts) ? " This device is offline at the moment." : "";
  switch (view.status) {
    case "paused":
      return {
        mood: "paused",
        sentence: "Paused. This device does no work until you resume.",
        hint: "It stays connected, so that it goes on quickly. Stop leaves the run.",
        main: { act: "resume", words: "Resume" },
        other: STOP,
      };
    case "failed":
      return {
        mood: "trouble",
        sentence: asSentence(view.sentence),
        hint: "Try again; if it keeps happening, reload the page.",
        main: { act: "retry", words: "Try again" },
        other: STOP,
      };
    case "connecting":
    case "fetching":
    case "waiting":
      return {
        mood: takesPart(view) ? "working" : "busy",
        sentence: `${calm(view)}${offline}`,
        hint: RUNNING_HINT,
        main: { act: "pause", words: "Pause" },
        other: STOP,
      };
    case "training":
    case "validating":
    case "uploading":
      return {
        mood: "working",
        sentence: `${view.sentence}${offline}`,
        hint: RUNNING_HINT,
        main: { act: "pause", words: "Pause" },
        other: STOP,
      };
    case "stopped":
      return idle(facts);
    default:
      return view.status satisfies never;
  }
}

/** One sentence that stays for those of a fraction of a second, so that neither eyes nor screen readers are made to follow. */
function calm(view: NonNullable<Facts["view"]>): string {
  const { sentence } = view;
  if (/^Connecting again(?: in \d+ s)?: Cannot dial/.test(sentence)) {
    return "The relay does not answer. This device tries again by itself.";
  }
  return isBetweenRounds(view) ? "Between two rounds: the next version is made." : sentence;
}

/** What to do about each failure that a person can do something about. */
const REMEDIES: Readonly<Record<string, string>> = {
  "no-engine": "Update the browser, or open this page in a current Chrome, Edge, Firefox or Safari.",
  "model-too-big":
    "This device has too little memory for the model. You can still follow the run, or contribute from a device with more memory.",
  "device-lost":
    "The graphics processor was reset or taken away, often by another program. Try again; nothing is lost.",
  "device-wrong":
    "The graphics processor gave wrong numbers in a self-test, so it does not train. A driver update may help.",
  unreachable: "The relay may be restarting, or a firewall is in the way. Try again in a moment.",
  store: "The browser does not let this page keep data. Leave private browsing, or allow storage for this site.",
  consent: "Try again: the terms of the run that it serves now are shown first.",
  limit: "Please reload the page; if it happens again, report it.",
};

function failed(code: string, message: string): Stage {
  return {
    mood: "trouble",
    sentence: asSentence(message),
    hint:
      REMEDIES[code] ?? "Try again, or reload the page. If it happens again, please report it with the sentence above.",
    main: { act: "retry", words: "Try again" },
    other: null,
  };
}
