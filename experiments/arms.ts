/**
 * What the arms of the catalogue are made of: models, links, devices and the ways of training. An arm says what it changes; what it
 * does not say is the sample charter's, but for its rounds: the learning rate falls to a tenth over the run, and what comes late is
 * refused.
 */
import { type Charter, type ModelConfig } from "../src/protocol/charter.ts";
import { SAMPLE_INNER, SAMPLE_MODEL, sampleCharter } from "../src/protocol/sample.ts";
import type { Arm, CharterChanges, Devices, Links } from "./experiment.ts";
import { SOURCES } from "./sources.ts";

/** About a hundred thousand parameters: minutes for an experiment, enough to see that the harness works. */
export const TINY_MODEL: ModelConfig = { ...SAMPLE_MODEL, channels: 64, layers: 2, hidden: 176, time: 64 };
/** About three times the sample model. */
const LARGER_MODEL: ModelConfig = { ...SAMPLE_MODEL, channels: 192, layers: 4, heads: 6, kvHeads: 3, hidden: 528 };

/** So slow that a small model's update takes two thirds of a round to go up, and the new version as long to come down. */
export const NARROW: Links = { upMbitPerS: 0.03, downMbitPerS: 0.12, delayMs: 40 };
/** So slow upwards that what a small model's contributors send in a round arrives early in the next. */
const CREEPING = { upMbitPerS: 0.0048, downMbitPerS: 10 };
/** A home connection in the country. */
export const RURAL: Links = { upMbitPerS: 2, downMbitPerS: 20, delayMs: 40 };
/** A home connection in a city. */
export const HOME: Links = { upMbitPerS: 10, downMbitPerS: 50, delayMs: 40 };
/** 25 million parameters; only with "noise". */
export const MIDDLING_MODEL: ModelConfig = {
  ...SAMPLE_MODEL,
  channels: 512,
  layers: 8,
  heads: 8,
  kvHeads: 4,
  hidden: 1_536,
};
const STEADY: Devices = { stepMs: 200, spread: 1 };
const UNEVEN: Devices = { stepMs: 200, spread: 10 };
/** A round lasts so many times what a fast device needs for it. */
const ROUND_TIMES = 3;

export const SEEDS = [1, 2, 3];
const sample = sampleCharter([], {
  name: "none",
  licence: "CC0-1.0",
  category: "fully-open",
  shards: [],
});

export const { uplink, newcomers, downlink, trust, round } = sample;
/** All of the stretch for the whole run, whose inner rate falls: there the stretch costs nothing in the end. */
export const outer: Charter["outer"] = { ...sample.outer, radialRounds: 0 };

/** Everything is accepted: baselines know no verdicts. */
export const TRUSTING: Charter["trust"] = {
  ...trust,
  normMax: 0,
  improvementMin: -1e9,
  improvementShare: 0,
  harmMax: 1e9,
  auditShare: 0,
};
/** The weighted mean, nothing else. */
export const PLAIN_MEAN: Charter["outer"] = {
  learningRate: 1,
  momentum: 0,
  clipToMedian: 0,
  normPower: 0,
  radial: false,
  radialRounds: 0,
  endShare: 1,
};
/** Values that travel as they are. Counted as f32 (`wire.ts`). */
export const DENSE = { keep: 4_096, bits: 64, beta: 0 } as const;
export const EXACT = { ...DENSE, together: 0, carry: false } as const;

/** What no update and no verdict depends on: a finished run counts while its arm is what it was. */
const SENDS_NOTHING: Partial<CharterChanges> = {
  uplink: EXACT,
  newcomers: { contributions: 0, keep: 4_096 },
  downlink: DENSE,
  outer: PLAIN_MEAN,
  trust: TRUSTING,
};

export interface Scale {
  readonly model: ModelConfig;
  readonly contributors: number;
  readonly rounds: number;
  /** H */
  readonly steps: number;
  readonly split?: Arm["split"];
  readonly learningRate?: number;
  readonly matrixRate?: number;
  readonly batch?: number;
}

export function charterOf({
  model,
  rounds,
  steps,
  learningRate = SAMPLE_INNER.learningRate,
  matrixRate = SAMPLE_INNER.matrixRate,
  batch = 8,
}: Scale): CharterChanges {
  const fastMs = STEADY.stepMs * steps;
  return {
    model,
    inner: { ...SAMPLE_INNER, batch, learningRate, matrixRate },
    uplink,
    newcomers,
    downlink,
    outer,
    round: {
      trainMs: ROUND_TIMES * fastMs,
      stepsMax: steps,
      aheadMax: 0,
      aheadShare: 1,
      graceMs: 15_000,
      quorum: 0.75,
      patience: 1,
      judgeMs: 60_000,
      decayRounds: rounds,
      decayTo: 0.1,
      lateShare: 0, // unless an arm asks what it does
    },
    trust,
  };
}

type ArmChanges = Partial<Omit<Arm, "charter" | "name" | "sentence">> & { readonly charter?: Partial<CharterChanges> };

export function arm(scale: Scale, name: string, sentence: string, changes: ArmChanges = {}): Arm {
  const { charter, ...rest } = changes;
  return {
    name,
    sentence,
    way: "federated",
    work: "training",
    contributors: scale.contributors,
    rounds: scale.rounds,
    tokensMax: null,
    sources: SOURCES,
    split: scale.split ?? "whole",
    devices: STEADY,
    links: HOME,
    forgets: false,
    vanishShare: 0,
    ...rest,
    charter: { ...charterOf(scale), ...charter },
  };
}

/** The default with some settings changed, at `SMALL_BATCH`. */
export function changed(name: string, sentence: string, charter: Partial<CharterChanges>): Arm {
  return arm(SMALL_BATCH, name, sentence, { charter });
}

export function synchronous(scale: Scale): Arm {
  const sentence = `Data parallel: one step on the mean gradient of all ${scale.contributors}, every step`;
  return arm(scale, "synchronous", sentence, { way: "synchronous", charter: SENDS_NOTHING });
}

/** The same arm in rounds as `npm start` has them, on devices that just take its steps in one: the rate stays what it is, and late updates count half. */
export function asStarted(made: Arm): Arm {
  const { stepsMax, aheadMax } = made.charter.round;
  const stepMs = Math.floor(round.trainMs / (stepsMax + 1)) + 1; // one more would not fit
  const charter = { ...made.charter, round: { ...round, stepsMax, aheadMax } };
  return { ...made, devices: { ...made.devices, stepMs }, charter };
}

function single(scale: Scale): Arm {
  const sentence = "One worker alone, for as many steps as each contributor takes";
  return arm(scale, "single", sentence, {
    way: "synchronous",
    contributors: 1,
    split: "whole",
    charter: SENDS_NOTHING,
  });
}

/** Data parallel of fewer contributors, so with a smaller total batch in as many steps: to how many are eight of another arm equal? */
export function fewer(scale: Scale): Arm {
  const made = synchronous(scale);
  return { ...made, name: `${made.name}-${scale.contributors}` };
}

export function diloco(scale: Scale): Arm {
  const sentence = "DiLoCo: dense deltas, outer Nesterov with learning rate 0.7 and momentum 0.9";
  return dense(scale, { name: "diloco", sentence, outer: { ...PLAIN_MEAN, learningRate: 0.7, momentum: 0.9 } });
}

export function fedAvg(scale: Scale): Arm {
  const sentence = "FedAvg: the mean of the contributors' dense parameters (inner moments kept)";
  return dense(scale, { name: "fedavg", sentence, outer: PLAIN_MEAN });
}

/** FedAvg, stretched to the contributors' own norm. */
export function stretched(scale: Scale): Arm {
  const sentence = "The mean of the contributors' dense deltas, stretched to the mean of their norms";
  return dense(scale, { name: "stretched", sentence, outer: { ...PLAIN_MEAN, radial: true } });
}

export function dense(
  scale: Scale,
  { name, sentence, outer }: Pick<Arm, "name" | "sentence"> & Pick<Charter, "outer">,
): Arm {
  return arm(scale, name, sentence, {
    charter: { uplink: EXACT, downlink: DENSE, outer, trust: TRUSTING },
  });
}

/** What the sample charter does, and for contributors with a source each what such a run should ask of them (`MEMBERS`). */
export function standard(scale: Scale): Arm {
  const sentence = "Heddle's default: the sample charter's compression, outer step and judging";
  return scale.split === "by-source"
    ? arm(scale, "default", `${sentence}; ${MEMBERS.uplink.keep} values up, harm up to ${MEMBERS.trust.harmMax}`, {
        charter: MEMBERS,
      })
    : arm(scale, "default", sentence);
}

/** `made`, with an outer rate that falls to `share` of itself over the run. */
export function falling(made: Arm, share: number): Arm {
  const isDefault = made.name === "default";
  return {
    ...made,
    name: isDefault ? `rate-to-${share}` : `${made.name}-rate-to-${share}`,
    sentence: `${isDefault ? "The default" : made.sentence}; the outer rate falls to ${share}`,
    charter: { ...made.charter, outer: { ...made.charter.outer, endShare: share } },
  };
}

/** `made` at an inner rate that stays, with an outer rate that falls to `share` of itself over the first `rounds` and stays there. */
export function settling(made: Arm, share: number, rounds: number): Arm {
  const settled = falling(made, share);
  return {
    ...settled,
    name: `${settled.name}-in-${rounds}`,
    sentence: `${settled.sentence} in ${rounds} rounds`,
    charter: { ...settled.charter, round: { ...settled.charter.round, decayRounds: rounds, decayTo: 1 } },
  };
}

/** The default, where `keep` of 4,096 values go up. */
export function sends(scale: Scale, keep: number): Arm {
  const together = Math.min(4_096, uplink.together * (keep / uplink.keep)); // more there is not
  return arm(scale, `up-${keep}`, `The default, of 4,096 values ${keep} go up`, {
    charter: { uplink: { ...uplink, keep, together } },
  });
}

/** `made`, at least as many tokens in rounds of `steps` steps. The rate falls by the round: of fewer rounds the last trains at a higher one. */
export function inRounds(made: Arm, steps: number): Arm {
  const { stepsMax, trainMs, decayRounds } = made.charter.round;
  const asMany = (rounds: number): number => Math.ceil((rounds * stepsMax) / steps);
  const round = {
    ...made.charter.round,
    stepsMax: steps,
    trainMs: (trainMs * steps) / stepsMax,
    decayRounds: asMany(decayRounds),
  };
  return {
    ...made,
    name: `${made.name}-${steps}`,
    sentence: `${made.sentence}; rounds of ${steps} steps`,
    rounds: asMany(made.rounds),
    charter: { ...made.charter, round },
  };
}

/** `made`, but a third of the values travels in each round, up and down. */
export function thinly(made: Arm): Arm {
  const third = (keep: number): number => Math.round(keep / 3);
  const { uplink, downlink } = made.charter;
  return {
    ...made,
    name: `${made.name}-thinly`,
    sentence: `${made.sentence}, and a third of the values in each`,
    charter: {
      ...made.charter,
      uplink: { ...uplink, keep: third(uplink.keep), together: third(uplink.together) },
      downlink: { ...downlink, keep: third(downlink.keep) },
    },
  };
}

/** `made`, whose mean is stretched the less the longer the run lasts, after `rounds` not at all. */
export function fading(made: Arm, rounds: number): Arm {
  return {
    ...made,
    name: `stretch-fades-in-${rounds}`,
    sentence: `The default; the stretch fades in ${rounds} rounds`,
    charter: { ...made.charter, outer: { ...made.charter.outer, radialRounds: rounds } },
  };
}

/** The default, whose devices train ahead while an update travels. */
export function ahead(scale: Scale): Arm {
  const round = { ...charterOf(scale).round, aheadMax: scale.steps - 1 };
  return arm(scale, "ahead", "Devices train ahead", { charter: { round } });
}

/** The default, beside those that train ahead. */
export function waits(scale: Scale): Arm {
  return { ...standard(scale), name: "waits", sentence: "The same, but devices wait for the next version" };
}

/** `made` at a rate that stays what it is, on narrow links or at home: at any time it is as far as it would be in a longer run. */
export function steadily(made: Arm, links: Links): Arm {
  const charter = { ...made.charter, round: { ...made.charter.round, decayRounds: 0, decayTo: 1 } };
  const place = links === NARROW ? "narrow" : "home";
  return {
    ...made,
    name: `${made.name}-steady-${place}`,
    sentence: `${made.sentence}; the rate stays`,
    links,
    charter,
  };
}

/** The default with another outer rate and Nesterov momentum (0: none), its mean stretched or not. */
export function nesterov(scale: Scale, step: Pick<Charter["outer"], "learningRate" | "momentum" | "radial">): Arm {
  const { learningRate, momentum, radial } = step;
  const name = `outer-${learningRate}-momentum-${momentum}${radial ? "" : "-plain"}`;
  const sentence = `Outer rate ${learningRate}, Nesterov momentum ${momentum}${radial ? "" : ", the mean not stretched"}`;
  return arm(scale, name, sentence, { charter: { outer: { ...outer, ...step } } });
}

/** The default, its mean not stretched. */
export function plainMean(scale: Scale): Arm {
  const made = standard(scale);
  const charter = { ...made.charter, outer: { ...made.charter.outer, radial: false } };
  return { ...made, name: "plain-mean", sentence: "The mean is not stretched", charter };
}

/** The default, nothing clipped to the median norm. */
export function notClipped(scale: Scale): Arm {
  const made = standard(scale);
  const charter = { ...made.charter, outer: { ...made.charter.outer, clipToMedian: 0 } };
  return { ...made, name: "not-clipped", sentence: "Nothing is clipped to the median norm", charter };
}

/** The default, nothing clipped, in whose merges weights go with the norm to the power of `power`. */
export function byNorm(scale: Scale, power: number): Arm {
  const made = notClipped(scale);
  const charter = { ...made.charter, outer: { ...made.charter.outer, normPower: power } };
  return {
    ...made,
    name: `norm-power-${power}`,
    sentence: `${made.sentence}; weights go with the norm to the power of ${power}`,
    charter,
  };
}

/** The same, but AdamW trains the layers' matrices, too. */
export function adamw(made: Arm): Arm {
  const inner = { ...made.charter.inner, matrixRate: 0 };
  return {
    ...made,
    name: `${made.name}-adamw`,
    sentence: `${made.sentence}; AdamW for all`,
    charter: { ...made.charter, inner },
  };
}

/**
 * Members with a source each have less in common, so more of what each learns must go up. Others cannot measure it on their own
 * data: a member may worsen the mixture a little in each round, and the mean over members does not.
 */
const MEMBERS = { uplink: { ...uplink, keep: 1_024 }, trust: { ...trust, harmMax: 0.2 } };

export function five(scale: Scale): Arm[] {
  return [synchronous(scale), single(scale), diloco(scale), fedAvg(scale), standard(scale)];
}

/** Long enough for publications' orderings (fewer than 30 rounds decide nothing), small enough for many arms. */
export const SMALL: Scale = { model: TINY_MODEL, contributors: 8, rounds: 40, steps: 15 };
/** The same with what a volunteer's GPU wants. */
export const SMALL_BATCH: Scale = { ...SMALL, rounds: 30, batch: 32, matrixRate: 0.02 };
export const SMALL_BY_SOURCE: Scale = { ...SMALL_BATCH, split: "by-source" };
export const PROOF: Scale = { model: TINY_MODEL, contributors: 8, rounds: 10, steps: 15 };
export const SAMPLE: Scale = { model: SAMPLE_MODEL, contributors: 8, rounds: 40, steps: 30 };
/** What a volunteer's GPU wants: contributors whose own gradient is little noisy, and bears a larger rate, in short rounds. */
export const BATCH: Scale = { ...SAMPLE, rounds: 30, steps: 15, batch: 32, matrixRate: 0.02 };
export const LARGER: Scale = { model: LARGER_MODEL, contributors: 8, rounds: 30, steps: 30 };

/** Half of the contributors have links on which an update takes most of a round, or nobody has: then `lateShare` plays no part. */
export function late(name: string, sentence: string, lateShare: number | null): Arm {
  const scale: Scale = { ...SMALL, contributors: 4, rounds: 30 };
  const round = { ...charterOf(scale).round, graceMs: 1_000, lateShare: lateShare ?? 0 };
  // How much each sends does not depend on how many are taken.
  return arm(scale, name, sentence, {
    charter: { round, uplink: { ...uplink, together: 0 } },
    ...(lateShare === null ? {} : { slow: { contributors: scale.contributors / 2, links: CREEPING } }),
  });
}

export function atRate(way: (scale: Scale) => Arm, scale: Scale, learningRate: number): Arm {
  const made = way({ ...scale, learningRate });
  return { ...made, name: `${made.name}-${learningRate}` };
}

/** `way` at Muon's rate `matrixRate`. */
export function atMatrixRate(way: (scale: Scale) => Arm, scale: Scale, matrixRate: number): Arm {
  const made = way({ ...scale, matrixRate });
  return { ...made, name: `${made.name}-matrix-${matrixRate}` };
}

/** Each of the ways at each learning rate. */
export function atRates(
  scale: Scale,
  ways: readonly ((scale: Scale) => Arm)[],
  learningRates: readonly number[],
): Arm[] {
  return learningRates.flatMap((rate) => ways.map((way) => atRate(way, scale, rate)));
}

/** Data parallel and the default at several rates of Muon, and of AdamW alone. */
export function rates(scale: Scale): Arm[] {
  const withMuon = [synchronous, standard].flatMap((way) =>
    [0.005, 0.01, 0.02, 0.04].map((matrixRate) => atMatrixRate(way, scale, matrixRate)),
  );
  return [
    ...withMuon,
    ...atRates(
      scale,
      [synchronous, standard].map((way) => (own: Scale) => adamw(way(own))),
      [1e-3, 2e-3, 4e-3, 8e-3],
    ),
  ];
}

/** Eight steady contributors, and many unsteady ones until they have trained on as many accepted tokens. */
export function churn(
  model: ModelConfig,
  { rounds, steps }: { readonly rounds: number; readonly steps: number },
): Arm[] {
  const tokensMax = rounds * steps * 8 * 8 * model.time;
  const short = Math.ceil(steps / 2);
  const steady = { ...standard({ model, contributors: 8, rounds, steps }), name: "steady-8", tokensMax };
  const unsteady = (batch: number, stepsMax = steps): Arm => {
    // Of a round's steps a device takes as many as it can in the time of three fast ones; on a logarithmic scale that is
    // 0.77 of them on average. What vanishes is lost.
    const share = 0.77 * (1 - VANISH_SHARE);
    const expected = Math.ceil(tokensMax / (32 * share * stepsMax * batch * model.time));
    const scale: Scale = { model, contributors: 32, rounds: expected, steps: stepsMax, batch };
    const isShort = stepsMax < steps;
    return arm(
      scale,
      `unsteady-32-batch-${batch}${isShort ? "-short" : ""}`,
      `32 contributors with batches of ${batch}${isShort ? ` in rounds of ${stepsMax} steps` : ""}; 30 % vanish each round, the slowest is ten times slower than the fastest`,
      { devices: UNEVEN, vanishShare: VANISH_SHARE, rounds: 3 * expected, tokensMax },
    );
  };
  return [
    steady,
    { ...inRounds(steady, short), name: "steady-8-short" },
    unsteady(8),
    unsteady(4),
    unsteady(2),
    unsteady(2, short),
  ];
}

export const VANISH_SHARE = 0.3;
