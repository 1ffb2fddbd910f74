/** Records of the run and of this device as lists of name and value, in words and rounded for people. Pure. */
import type { ContributionView, ContributorView } from "../contributor/view.ts";
import type { RunView } from "../protocol/run-view.ts";
import type { ConsentTerms } from "./consent-parts.ts";
import type { ContributionItem } from "./contributions.ts";
import { formatBytes, formatCount, formatLoss, formatPlural, formatShort, asSentence } from "./format.ts";

export const VERSIONS_LOOKED_AT = 20;

export interface Fact {
  readonly name: string;
  readonly value: string;
  readonly note?: string;
}

/** What a run is at, in words. */
export const PHASES = {
  gathering: "waiting for contributors",
  paused: "the operator has paused the run",
  training: "contributors are training",
  judging: "contributions are being checked",
  merging: "the next version is being made",
} as const;

export function runFacts(run: RunView): readonly Fact[] {
  const last = run.versions.at(-1);
  const licences = [...new Set(run.charter.train.map((dataset) => dataset.licence))].join(", ");
  const names = run.charter.train.map((dataset) => dataset.name).join(", ");
  const facts: Fact[] = [
    {
      name: "Version",
      value: formatCount(last?.version ?? 0),
      note: `Round ${formatCount(run.round)}: ${PHASES[run.phase]}`,
    },
    { name: "Contributors now", value: formatCount(run.connected) },
    {
      name: "Model",
      value: `${formatShort(run.parameters)} parameters`,
      note: `${run.charter.model.layers} layers, ${run.charter.model.channels} channels, ${formatBytes(run.parameters * 4)} uncompressed`,
    },
  ];
  if (last !== undefined && last.version > 0) {
    const judged = `${formatPlural(last.accepted, "contribution", "contributions")} accepted, ${formatCount(last.refused)} refused`;
    facts.push({
      name: "Loss",
      value: formatLoss(last.evalLoss),
      note: `${lossUnit(run)}, on text kept out of training`,
    });
    facts.push({
      name: "Last version",
      value: judged,
      note: `${formatShort(last.tokensPerS)} tokens per second together`,
    });
    facts.push({
      name: "Traffic for it",
      value: `${formatBytes(last.bytesUp)} up, ${formatBytes(last.bytesDown)} down`,
      note: "all contributors together",
    });
  }
  facts.push({ name: "Data", value: names === "" ? "–" : names, note: licences === "" ? "" : `Licence: ${licences}` });
  return facts;
}

/** Models of bytes have a vocabulary of 256: one token is one byte of text. */
export function lossUnit({ charter }: RunView): string {
  return charter.model.vocabulary <= 256 ? "nats per byte" : "nats per token";
}

export function deviceFacts(view: ContributorView | null): readonly Fact[] {
  if (view === null) {
    return [{ name: "Engine", value: "Chosen when you start: the GPU if it is faster, the processor otherwise." }];
  }
  const words = { webgpu: "GPU, by WebGPU", wasm: "Processor, by WebAssembly", twin: "Processor, reference engine" };
  const engine = Object.hasOwn(words, view.engine) ? words[view.engine as keyof typeof words] : view.engine;
  const lane =
    view.lane === null ? "Not connected" : { rtc: "WebRTC", ws: "WebSocket", memory: "In this process" }[view.lane];
  return [
    {
      name: "Engine",
      value: engine,
      note: [view.device, asSentence(view.engineSentence)].filter((text) => text !== "").join(". "),
    },
    { name: "Connection", value: lane, note: asSentence(view.laneReason) },
    {
      name: "Work",
      value: `${formatCount(view.accepted)} accepted, ${formatCount(view.refused)} refused`,
      note: `${formatPlural(view.validated, "check", "checks")} of other people’s contributions`,
    },
    { name: "Learned from", value: `${formatShort(view.tokensTotal)} tokens` },
    { name: "Traffic", value: `${formatBytes(view.bytesUp)} sent, ${formatBytes(view.bytesDown)} received` },
    ...peerFacts(view.peers),
  ];
}

/** Nothing where nothing was exchanged and nobody asked for it. */
function peerFacts({ on, bytesServed, bytesFetched }: ContributorView["peers"]): readonly Fact[] {
  const value = `${formatBytes(bytesServed)} sent, ${formatBytes(bytesFetched)} received`;
  return on || bytesServed + bytesFetched > 0
    ? [{ name: "With other volunteers", value, note: "Directly, not through the relay" }]
    : [];
}

export function itemsOf(view: ContributorView | null): readonly ContributionItem[] {
  return (view?.contributions ?? []).map((contribution) => ({
    id: contribution.id,
    round: contribution.round,
    sentMs: contribution.sentMs,
    wireBytes: contribution.wireBytes,
    steps: contribution.steps,
    loss: contribution.loss,
    state: stateOf(contribution),
    sentence: contribution.sentence,
  }));
}

/** What the person is asked to agree to, estimated from the charter and the last version's traffic. */
export function consentTerms(run: RunView, duty: number, lasts: ConsentTerms["lasts"] = "30 days"): ConsentTerms {
  const { model, inner, train } = run.charter;
  const shardBytes = train.flatMap((dataset) => dataset.shards).reduce((sum, shard) => sum + shard.bytes, 0);
  const rows = inner.batch * model.time;
  // Parameters, gradients, two moments, residual and base; activations of every layer; logits.
  const activations = rows * (model.layers * (10 * model.channels + 4 * model.hidden) + 2 * model.vocabulary);
  return {
    name: run.charter.name,
    purpose: asSentence(run.charter.purpose),
    downloadBytes: run.parameters * 4 + shardBytes,
    round: roundTerms(run),
    memoryBytes: run.parameters * 4 * 6 + activations * 4,
    lasts,
    duty,
  };
}

/**
 * What one contributor sent and received for a version, and how long it took: medians of the last ones, so that neither
 * newcomers nor nights without contributors weigh in. Null before there is a version to go by.
 */
function roundTerms({ versions }: RunView): ConsentTerms["round"] {
  const last = versions.slice(-VERSIONS_LOOKED_AT);
  const made = last.filter(({ version, accepted, refused }) => version > 0 && accepted + refused > 0);
  const upBytes = median(made.map((one) => one.bytesUp / (one.accepted + one.refused)));
  const downBytes = median(made.map((one) => one.bytesDown / (one.accepted + one.refused)));
  const ms = median(last.slice(1).map((one, i) => one.timeMs - (last[i]?.timeMs ?? Number.NaN)));
  return upBytes === null || downBytes === null || ms === null || ms <= 0 ? null : { upBytes, downBytes, ms };
}

/** The lower one of two in the middle; null for none. */
function median(values: readonly number[]): number | null {
  const sorted = values.filter((value) => Number.isFinite(value)).toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? null;
}

function stateOf(contribution: ContributionView): ContributionItem["state"] {
  return contribution.verdict === null ? "waiting" : contribution.verdict.type;
}
