/**
 * What the observatory says of a round, its events and a verification, as pure functions of the records. The words of reasons and
 * findings come from where they are decided.
 */
import type { Finding, Subject } from "../coordinator/finding.ts";
import type { RunView } from "../protocol/run-view.ts";
import {
  CLIENTS,
  inLastHour,
  type Clients,
  type ContributionRecord,
  type Moment,
  type RoundRecord,
} from "../protocol/series.ts";
import { REASONS, verdictSentence, type Reason } from "../protocol/verdict.ts";
import { lossUnit, PHASES, type Fact } from "../ui/facts.ts";
import { asSentence, formatBytes, formatCount, formatLoss, formatPlural, formatShort } from "../ui/format.ts";

/** What the page needs to know to say something of a round. */
export interface Sight {
  readonly rounds: readonly RoundRecord[];
  /** Index of the round looked at. */
  readonly at: number;
  /** The ledger has been read to its end. */
  readonly whole: boolean;
  /** Follows the newest round. */
  readonly live: boolean;
  /** The run now, where the relay answers; null in the past. */
  readonly now: RunView | null;
  readonly run: RunView | null;
}

const PROGRAMS = {
  page: ["web page", "web pages"],
  widget: ["widget on a partner’s site", "widgets on partners’ sites"],
  headless: ["headless client", "headless clients"],
  other: ["other client", "other clients"],
} as const;

/** "3 web pages and 1 headless client". */
export function clientWords(clients: Clients): string {
  const parts = CLIENTS.filter((client) => clients[client] > 0).map((client) => {
    const [one, many] = PROGRAMS[client];
    return formatPlural(clients[client], one, many);
  });
  return joined(parts);
}

export function countClients(clients: Clients): number {
  return CLIENTS.reduce((sum, client) => sum + clients[client], 0);
}

/** "21 Nov 2026, 14:03:20". */
export function formatTime(timeMs: number): string {
  return TIME.format(timeMs);
}

const TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** "14 s", "3 min 20 s", "2 h 5 min". */
export function formatSpan(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 10) {
    return `${(ms / 1000).toFixed(1)}\u00a0s`;
  }
  if (seconds < 60) {
    return `${seconds}\u00a0s`;
  }
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes}\u00a0min ${seconds % 60}\u00a0s`
    : `${Math.floor(minutes / 60)}\u00a0h ${minutes % 60}\u00a0min`;
}

/** The slider's words: which round, of how many, and when. */
export function scrubWords({ rounds, at, live, whole }: Sight): string {
  const round = rounds[at];
  if (round === undefined) {
    return "Reading the ledger …";
  }
  const name = round.round === 0 ? "The beginning" : `Round ${formatCount(round.round)}`;
  if (live && !whole) {
    return `Reading the ledger: round ${formatCount(round.round)} so far …`;
  }
  return live
    ? `Now: round ${formatCount(round.round)}, ${formatTime(round.endedMs)}`
    : `${name} of ${formatCount(rounds.at(-1)?.round ?? 0)}, ${formatTime(round.endedMs)}`;
}

export function roundFacts({ rounds, at, live, now, run }: Sight): readonly Fact[] {
  const round = rounds[at];
  if (round === undefined) {
    return [];
  }
  const people = countClients(round.contributors);
  const own = round.privateData === 0 ? "" : `; ${formatCount(round.privateData)} on data of their own`;
  const outcome =
    round.round === 0
      ? "The run began with these parameters"
      : round.merged
        ? `Round ${formatCount(round.round)} made it in ${formatSpan(round.endedMs - round.openedMs)}`
        : `Round ${formatCount(round.round)} ended without an accepted contribution`;
  return [
    { name: "Version", value: formatCount(round.version), note: outcome },
    {
      name: "Loss",
      value: formatLoss(round.evalLoss),
      note: run === null ? "on text kept out of training" : `${lossUnit(run)}, on text kept out of training`,
    },
    {
      name: "Contributors to this round",
      value: formatCount(people),
      note: people === 0 ? "nobody sent anything" : `${clientWords(round.contributors)}${own}`,
    },
    {
      name: "Verdicts on this round",
      value: `${formatCount(round.accepted)} accepted, ${formatCount(round.refused)} refused`,
      note: `${formatShort(round.tokens)} tokens in what was accepted`,
    },
    now === null
      ? {
          name: "Connected",
          value: "–",
          note: live ? "the relay does not answer right now" : "the ledger does not say who was only connected",
        }
      : { name: "Connected now", value: formatCount(now.connected), note: PHASES[now.phase] },
    {
      name: "Ledger",
      value: `Entries ${formatCount(round.from)} to ${formatCount(round.to - 1)}`,
      note: `Base ${round.digest.slice(0, 16)}…`,
    },
  ];
}

export interface Quantity {
  readonly name: string;
  readonly of: (round: RoundRecord) => number;
  readonly value: (round: RoundRecord) => string;
  readonly note: (rounds: readonly RoundRecord[], at: number) => string;
}

/** What is drawn round by round. */
export const QUANTITIES: readonly Quantity[] = [
  {
    name: "Tokens",
    of: ({ tokens }) => tokens,
    value: ({ tokens }) => formatShort(tokens),
    note: (rounds, at) => `${formatShort(perHour(rounds, at).tokens)} an hour`,
  },
  {
    name: "Contributions",
    of: ({ accepted, refused }) => accepted + refused,
    value: ({ accepted, refused }) => formatCount(accepted + refused),
    note: (rounds, at) => `${formatShort(perHour(rounds, at).contributions)} an hour`,
  },
  {
    name: "Contributors",
    of: ({ contributors }) => countClients(contributors),
    value: ({ contributors }) => formatCount(countClients(contributors)),
    note: (rounds, at) =>
      `${formatPlural(countClients((rounds[at] as RoundRecord).totals.devices), "device", "devices")} so far`,
  },
  {
    name: "Bytes up",
    of: ({ bytesUp }) => bytesUp,
    value: ({ bytesUp }) => formatBytes(bytesUp),
    note: (rounds, at) => `${formatBytes((rounds[at] as RoundRecord).totals.bytesUp)} so far`,
  },
  {
    name: "Bytes down",
    of: ({ bytesDown }) => bytesDown,
    value: ({ bytesDown }) => formatBytes(bytesDown),
    note: (rounds, at) => `${formatBytes((rounds[at] as RoundRecord).totals.bytesDown)} so far`,
  },
  {
    name: "Time",
    of: ({ openedMs, endedMs }) => endedMs - openedMs,
    value: ({ openedMs, endedMs }) => formatSpan(endedMs - openedMs),
    note: (rounds, at) =>
      `${formatSpan((rounds[at] as RoundRecord).endedMs - (rounds[0] as RoundRecord).endedMs)} since the start`,
  },
];

/** Rates over the hour before; over what there was of it where the run is younger. */
function perHour(
  rounds: readonly RoundRecord[],
  at: number,
): { readonly tokens: number; readonly contributions: number } {
  const { tokens, contributions, ms } = inLastHour(rounds, at);
  const share = ms === 0 ? 0 : 3_600_000 / ms;
  return { tokens: tokens * share, contributions: contributions * share };
}

export function totalFacts({ rounds, at }: Sight): readonly Fact[] {
  const totals = rounds[at]?.totals;
  if (totals === undefined) {
    return [];
  }
  const judged = totals.accepted + totals.refusals;
  return [
    { name: "Devices so far", value: formatCount(countClients(totals.devices)), note: clientWords(totals.devices) },
    { name: "Learned from", value: `${formatShort(totals.tokens)} tokens`, note: "in accepted contributions" },
    {
      name: "Judged by",
      value: `${formatCount(totals.judgedByValidators)} by other contributors`,
      note: `${formatCount(judged - totals.judgedByValidators)} by the relay’s own referee or checks`,
    },
    { name: "Rounds without a version", value: formatCount(totals.skipped), note: "nothing was accepted in them" },
  ];
}

export interface ReasonRow {
  readonly name: string;
  readonly sentence: string;
  readonly count: number;
  readonly state: "accepted" | "refused";
}

/** Acceptances, then the reasons that ever occur in the run, so that rows stay where they are while one goes back. */
export function reasonRows({ rounds, at }: Pick<Sight, "rounds" | "at">): readonly ReasonRow[] {
  const totals = rounds[at]?.totals;
  const ever = Object.keys(rounds.at(-1)?.totals.refused ?? {}) as Reason[];
  const accepted: ReasonRow = {
    name: "Accepted",
    sentence: "It improved the model and is part of the next version.",
    count: totals?.accepted ?? 0,
    state: "accepted",
  };
  const refused = ever.toSorted().map((reason): ReasonRow => {
    return { name: asTitle(reason), sentence: REASONS[reason], count: totals?.refused[reason] ?? 0, state: "refused" };
  });
  return [accepted, ...refused];
}

function asTitle(reason: string): string {
  const words = reason.replaceAll("-", " ");
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}`;
}

/** What became of a contribution, and why. */
export function contributionWords({ header, client, wireBytes, judged }: ContributionRecord): {
  readonly title: string;
  readonly facts: string;
  readonly sentence: string;
} {
  const data = header.privateData ? ", on data of its own" : "";
  const loss = header.privateData ? "" : `training loss ${formatLoss(header.loss)}, `;
  const [program] = PROGRAMS[client];
  const losses = judged?.losses;
  const measured =
    losses === undefined || losses === null
      ? ""
      : ` Loss on random text ${formatLoss(losses.randomBefore)} before, ${formatLoss(losses.randomAfter)} after.`;
  const by =
    judged === null
      ? ""
      : judged.by === "relay"
        ? " Judged by the relay."
        : ` Judged by device ${judged.by.slice(0, 8)}.`;
  const verdict = judged === null ? "Not judged: the round went on without it." : verdictSentence(judged.verdict);
  return {
    title: `Device ${header.contributor.slice(0, 8)}, ${program}${data}`,
    facts: `${formatPlural(header.steps + header.ahead, "step", "steps")}, ${formatShort(header.tokens)} tokens, ${loss}${formatBytes(wireBytes)}`,
    sentence: `${verdict.replace(/^Accepted: it/, "It")}${measured}${by}`,
  };
}

export function momentWords({ event }: Moment): { readonly title: string; readonly sentence: string } {
  switch (event.type) {
    case "started":
      return {
        title: "The run began",
        sentence: "Charter and first parameters are fixed by their digests from here on.",
      };
    case "led":
      return {
        title: "Another relay leads",
        sentence: `Of the processes that share the run’s store, the one with epoch ${formatCount(event.epoch)} goes on.`,
      };
    case "paused":
      return { title: "Paused", sentence: "The operator has no more rounds opened; the one under way ends." };
    case "resumed":
      return { title: "Resumed", sentence: "Rounds are opened again." };
    case "banned":
      return {
        title: "A device was excluded",
        sentence: `Device ${event.contributor.slice(0, 8)}, by the operator, who says: ${asSentence(event.why)}`,
      };
    case "unbanned":
      return {
        title: "A device was let in again",
        sentence: `Device ${event.contributor.slice(0, 8)}, by the operator.`,
      };
    default:
      return event satisfies never;
  }
}

/** In the order in which they are looked at: title, and what it means that it agrees. */
export const SUBJECTS: readonly { readonly subject: Subject; readonly title: string; readonly sentence: string }[] = [
  {
    subject: "ledger",
    title: "The chain",
    sentence: "Each entry holds the SHA-256 of the one before, and no entry contradicts those before it.",
  },
  { subject: "signatures", title: "The relay’s signatures", sentence: "One key has signed every entry (Ed25519)." },
  {
    subject: "contributors",
    title: "Contributors’ signatures",
    sentence: "Each contribution was signed by the device it names, and each merge took exactly the accepted ones.",
  },
  {
    subject: "memory",
    title: "This browser’s memory",
    sentence: "What this browser verified before is still in the ledger: history was not written anew.",
  },
  { subject: "charter", title: "The charter", sentence: "The rules of the run are those it began with." },
  {
    subject: "checkpoints",
    title: "Checkpoints",
    sentence: "The parameters that newcomers download are those of the ledger.",
  },
  { subject: "updates", title: "Updates", sentence: "The updates that everybody applies are those of the ledger." },
  { subject: "versions", title: "Versions", sentence: "Base − update gives the next base, bit for bit." },
  {
    subject: "merges",
    title: "Merges",
    sentence: "Merging the contributions again gives the same update, bit for bit.",
  },
  {
    subject: "training",
    title: "Training itself",
    sentence: "Cannot be checked here: nobody but the device saw it. Others have measured what it was worth.",
  },
];

export interface CheckRow {
  readonly title: string;
  readonly sentences: readonly string[];
  readonly state: "waiting" | "agrees" | "partly" | "unchecked" | "differs";
}

export const CHECK_WORDS: Readonly<Record<CheckRow["state"], string>> = {
  waiting: "Not yet",
  agrees: "Agrees",
  partly: "Agrees in part",
  unchecked: "Not checked",
  differs: "Differs",
};

/** A row a subject: what was found, or what would be looked at. */
export function checkRows(findings: readonly Finding[] | null): readonly CheckRow[] {
  const broken = findings?.some(({ subject, state }) => subject === "ledger" && state === "differs") ?? false;
  return SUBJECTS.map(({ subject, title, sentence }): CheckRow => {
    const own = (findings ?? []).filter((one) => one.subject === subject);
    if (findings === null) {
      return { title, sentences: [sentence], state: "waiting" };
    }
    if (own.length === 0) {
      return { title, sentences: [nothingFound(subject, broken)], state: "unchecked" };
    }
    const states = new Set(own.map(({ state }) => state));
    const state = states.has("differs")
      ? "differs"
      : states.size > 1
        ? "partly"
        : ([...states][0] as "agrees" | "unchecked");
    return { title, sentences: own.map((one) => one.sentence), state };
  });
}

function nothingFound(subject: Subject, broken: boolean): string {
  if (subject === "memory") {
    return "This browser has not verified this run before. Where all agrees it remembers the last entry, for the next time.";
  }
  return broken ? "Not looked at, because the ledger does not hold." : "There is nothing of it yet, or no longer.";
}

/** What a verification comes to. */
export function resultWords(
  findings: readonly Finding[],
  tookMs: number,
): {
  readonly mood: "agrees" | "differs";
  readonly sentence: string;
  readonly hint: string;
} {
  const differing = findings.filter(({ state }) => state === "differs");
  const [first] = differing;
  if (first !== undefined) {
    return {
      mood: "differs",
      sentence:
        differing.length === 1
          ? "One thing is not as the ledger says."
          : `${formatCount(differing.length)} things are not as the ledger says.`,
      hint: first.sentence,
    };
  }
  const sum = (subject: Subject): number =>
    findings.reduce((all, one) => all + (one.subject === subject && one.state === "agrees" ? one.count : 0), 0);
  const signatures = sum("signatures") + sum("contributors");
  const parts = [
    formatPlural(sum("ledger"), "entry", "entries"),
    ...(signatures === 0 ? [] : [formatPlural(signatures, "signature", "signatures")]),
    formatPlural(sum("updates"), "update", "updates"),
    formatPlural(sum("versions"), "version", "versions"),
    formatPlural(sum("merges"), "merge", "merges"),
  ];
  return {
    mood: "agrees",
    sentence: "All that can be checked agrees, digest by digest.",
    hint: `${joined(parts)}, in ${formatSpan(tookMs)}. What could not be checked, and why, is in the list below.`,
  };
}

function joined(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
