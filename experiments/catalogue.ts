/**
 * The named experiments. An arm says what it changes; what it does not say is the sample charter's, with the learning rate
 * falling to a tenth over the run. All arms of an experiment share model, data and devices unless they say otherwise.
 */
import { type Charter, type ModelConfig } from "../src/protocol/charter.ts";
import { SAMPLE_INNER, SAMPLE_MODEL, sampleCharter } from "../src/protocol/sample.ts";
import type { Arm, CharterChanges, Devices, Experiment, Links } from "./experiment.ts";
import { SOURCES } from "./sources.ts";

/** About a hundred thousand parameters: minutes for an experiment, enough to see that the harness works. */
const TINY_MODEL: ModelConfig = { ...SAMPLE_MODEL, channels: 64, layers: 2, hidden: 176, time: 64 };
/** About three times the sample model. */
const LARGER_MODEL: ModelConfig = { ...SAMPLE_MODEL, channels: 192, layers: 4, heads: 6, kvHeads: 3, hidden: 528 };

/** So slow that a small model's update takes two thirds of a round to go up, and the new version as long to come down. */
const NARROW: Links = { upMbitPerS: 0.03, downMbitPerS: 0.12, delayMs: 40 };
/** A home connection in the country. */
const RURAL: Links = { upMbitPerS: 2, downMbitPerS: 20, delayMs: 40 };
/** A home connection in a city. */
const HOME: Links = { upMbitPerS: 10, downMbitPerS: 50, delayMs: 40 };
/** 25 million parameters; only with "noise". */
const MIDDLING_MODEL: ModelConfig = { ...SAMPLE_MODEL, channels: 512, layers: 8, heads: 8, kvHeads: 4, hidden: 1_536 };
const STEADY: Devices = { stepMs: 200, spread: 1 };
const UNEVEN: Devices = { stepMs: 200, spread: 10 };
/** A round lasts so many times what a fast device needs for it. */
const ROUND_TIMES = 3;

const SEEDS = [1, 2, 3];
const { uplink, newcomers, downlink, outer, trust } = sampleCharter([], {
  name: "none",
  licence: "CC0-1.0",
  category: "fully-open",
  shards: [],
});

/** Everything is accepted: baselines know no verdicts. */
const TRUSTING: Charter["trust"] = {
  ...trust,
  normMax: 0,
  improvementMin: -1e9,
  improvementShare: 0,
  harmMax: 1e9,
  auditShare: 0,
};
/** Values that travel as they are. Counted as f32 (`wire.ts`). */
const DENSE = { keep: 4_096, bits: 64, beta: 0 } as const;

interface Scale {
  readonly model: ModelConfig;
  readonly contributors: number;
  readonly rounds: number;
  /** H */
  readonly steps: number;
  readonly split?: Arm["split"];
  readonly learningRate?: number;
  readonly batch?: number;
}

function charterOf({
  model,
  rounds,
  steps,
  learningRate = SAMPLE_INNER.learningRate,
  batch = 8,
}: Scale): CharterChanges {
  const fastMs = STEADY.stepMs * steps;
  return {
    model,
    inner: { ...SAMPLE_INNER, batch, learningRate },
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
    },
    trust,
  };
}

type ArmChanges = Partial<Omit<Arm, "charter" | "name" | "sentence">> & { readonly charter?: Partial<CharterChanges> };

function arm(scale: Scale, name: string, sentence: string, changes: ArmChanges = {}): Arm {
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

function synchronous(scale: Scale): Arm {
  const sentence = `Data parallel: one AdamW step on the mean gradient of all ${scale.contributors}, every step`;
  return arm(scale, "synchronous", sentence, { way: "synchronous" });
}

function single(scale: Scale): Arm {
  const sentence = "One worker alone, for as many steps as each contributor takes";
  return arm(scale, "single", sentence, { way: "synchronous", contributors: 1, split: "whole" });
}

function diloco(scale: Scale): Arm {
  const sentence = "DiLoCo: dense deltas, outer Nesterov with learning rate 0.7 and momentum 0.9";
  return dense(scale, {
    name: "diloco",
    sentence,
    outer: { ...outer, learningRate: 0.7, momentum: 0.9, clipToMedian: 0 },
  });
}

function fedAvg(scale: Scale): Arm {
  const sentence = "FedAvg: the mean of the contributors' dense parameters (inner AdamW, moments kept)";
  return dense(scale, { name: "fedavg", sentence, outer: { ...outer, learningRate: 1, momentum: 0, clipToMedian: 0 } });
}

function dense(scale: Scale, { name, sentence, outer }: Pick<Arm, "name" | "sentence"> & Pick<Charter, "outer">): Arm {
  return arm(scale, name, sentence, { charter: { uplink: DENSE, downlink: DENSE, outer, trust: TRUSTING } });
}

/** What the sample charter does. On data that others cannot measure it is only asked to do no great harm to all. */
function standard(scale: Scale): Arm {
  const sentence = "Heddle's default: the sample charter's compression, outer step and judging";
  return scale.split === "by-source"
    ? arm(scale, "default", `${sentence}, but harm of up to ${MEMBERS_HARM_MAX} is allowed`, {
        charter: { trust: { ...trust, harmMax: MEMBERS_HARM_MAX } },
      })
    : arm(scale, "default", sentence);
}

/** The default for several contributors at once, whose residuals would all be learned and sent again. */
function fading(scale: Scale): Arm {
  const sentence = "The default, but what is left fades by 0.2 a round";
  return arm(scale, "fading", sentence, { charter: { uplink: { ...uplink, beta: 0.2 } } });
}

/** A member who has one source of three may worsen the mixture a little in each round; the mean over members does not. */
const MEMBERS_HARM_MAX = 0.2;

function five(scale: Scale): Arm[] {
  return [synchronous(scale), single(scale), diloco(scale), fedAvg(scale), standard(scale)];
}

/** Long enough for publications' orderings (fewer than 30 rounds decide nothing), small enough for many arms. */
const SMALL: Scale = { model: TINY_MODEL, contributors: 8, rounds: 40, steps: 15 };
const PROOF: Scale = { model: TINY_MODEL, contributors: 8, rounds: 10, steps: 15 };
const SAMPLE: Scale = { model: SAMPLE_MODEL, contributors: 8, rounds: 40, steps: 30 };
const LARGER: Scale = { model: LARGER_MODEL, contributors: 8, rounds: 30, steps: 30 };

/** The default with other compression or another outer step. */
function varied(name: string, sentence: string, charter: Partial<CharterChanges>): Arm {
  return arm(SMALL, name, sentence, { charter });
}

const RATES = [1e-3, 2e-3, 4e-3, 8e-3];

/** Each of the ways at each learning rate. */
function atRates(
  scale: Scale,
  ways: readonly ((scale: Scale) => Arm)[] = [synchronous, diloco, standard, fading],
  rates: readonly number[] = RATES,
): Arm[] {
  return rates.flatMap((learningRate) =>
    ways.map((way) => {
      const made = way({ ...scale, learningRate });
      return { ...made, name: `${made.name}-${learningRate}` };
    }),
  );
}

/** Eight steady contributors, and many unsteady ones until they have trained on as many accepted tokens. */
function churn(model: ModelConfig, { rounds, steps }: { readonly rounds: number; readonly steps: number }): Arm[] {
  const steady: Scale = { model, contributors: 8, rounds, steps };
  const tokensMax = rounds * steps * 8 * 8 * model.time;
  const unsteady = (batch: number): Arm => {
    // Of a round's steps a device takes as many as it can in the time of three fast ones; on a logarithmic scale that is
    // 0.77 of them on average. What vanishes is lost.
    const share = 0.77 * (1 - VANISH_SHARE);
    const expected = Math.ceil(tokensMax / (32 * share * steps * batch * model.time));
    const scale: Scale = { model, contributors: 32, rounds: expected, steps, batch };
    return arm(
      scale,
      `unsteady-32-batch-${batch}`,
      `32 contributors with batches of ${batch}; 30 % vanish each round, the slowest is ten times slower than the fastest`,
      { devices: UNEVEN, vanishShare: VANISH_SHARE, rounds: 3 * expected, tokensMax },
    );
  };
  return [{ ...standard(steady), name: "steady-8", tokensMax }, unsteady(8), unsteady(4), unsteady(2)];
}

const VANISH_SHARE = 0.3;

export const EXPERIMENTS: readonly Experiment[] = [
  {
    name: "proof",
    question: "Does the harness work? A small model, few rounds: no claim about training",
    seeds: [1, 2],
    reference: "synchronous",
    arms: five(PROOF),
  },
  {
    name: "proof-churn",
    question: "Does the harness work when contributors vanish and are uneven? A small model, few rounds",
    seeds: [1],
    reference: "steady-8",
    arms: churn(TINY_MODEL, { rounds: 8, steps: 15 }),
  },
  {
    name: "proof-by-source",
    question: "Does the harness work when each contributor has one source? A small model, few rounds",
    seeds: [1],
    reference: "synchronous",
    arms: [synchronous, standard].map((make) => make({ ...PROOF, split: "by-source" })),
  },
  {
    name: "sample-iid",
    question:
      "Sample model, everyone draws from all text: is the default within 1 % of data parallel, and better than DiLoCo?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: five(SAMPLE),
  },
  {
    name: "sample-by-source",
    question: "Sample model, each contributor has one of three sources: is the default within 1 % of data parallel?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: five({ ...SAMPLE, split: "by-source" }),
  },
  {
    name: "sample-h15",
    question: "The same with 15 steps a round, twice as many rounds: what do more merges give?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: five({ ...SAMPLE, steps: 15, rounds: 80 }),
  },
  {
    name: "larger-iid",
    question: "Three times the sample model: does what holds for it hold here?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: five(LARGER),
  },
  {
    name: "larger-by-source",
    question: "Three times the sample model, each contributor has one of three sources",
    seeds: SEEDS,
    reference: "synchronous",
    arms: [synchronous, diloco, standard].map((make) => make({ ...LARGER, split: "by-source" })),
  },
  {
    name: "sample-churn",
    question:
      "Are 32 contributors, 30 % vanishing and ten times apart in speed, within 3 % of 8 steady ones at equal tokens?",
    seeds: SEEDS,
    reference: "steady-8",
    arms: churn(SAMPLE_MODEL, { rounds: 40, steps: 30 }),
  },
  {
    name: "sample-rates",
    question:
      "Which learning rate is best for data parallel, DiLoCo and the default? The comparison is fair at each one's best",
    seeds: [1],
    reference: "synchronous-0.002",
    arms: atRates(SAMPLE),
  },
  {
    name: "small-rates",
    question: "The same for a small model: which learning rate is best for which way?",
    seeds: SEEDS,
    reference: "synchronous-0.002",
    arms: atRates(SMALL),
  },
  {
    name: "small-averaging",
    question: "Small model: averaging takes noise away, so does it bear a larger inner rate?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: [synchronous(SMALL), ...atRates(SMALL, [fedAvg], [2e-3, 4e-3, 6e-3, 8e-3])],
  },
  {
    name: "small-momentum",
    question:
      "Small model, dense deltas, as many tokens in 40 rounds of 15 steps or 10 of 60: does large outer momentum hurt at short rounds, as published?",
    seeds: SEEDS,
    reference: "steps-15-momentum-0",
    arms: [15, 60].flatMap((steps) =>
      [0, 0.5, 0.9].map((momentum) =>
        dense(
          { ...SMALL, steps, rounds: 600 / steps },
          {
            name: `steps-${steps}-momentum-${momentum}`,
            sentence: `Rounds of ${steps} steps, outer rate 0.7, momentum ${momentum}`,
            outer: { ...outer, learningRate: 0.7, momentum, clipToMedian: 0 },
          },
        ),
      ),
    ),
  },
  {
    name: "small-long",
    question: "Small model, four times as many rounds: does the distance to data parallel shrink as training goes on?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: five({ ...SMALL, rounds: 160 }),
  },
  {
    name: "small-inner",
    question: "Small model: do other moments of AdamW suit short runs of local steps better?",
    seeds: SEEDS,
    reference: "beta1-0.9-beta2-0.95",
    arms: [
      [0.9, 0.95],
      [0.95, 0.95],
      [0.98, 0.95],
      [0.9, 0.99],
      [0.95, 0.99],
    ].map(([beta1 = 0.9, beta2 = 0.95]) =>
      varied(`beta1-${beta1}-beta2-${beta2}`, `AdamW with beta1 ${beta1} and beta2 ${beta2}`, {
        inner: { ...charterOf(SMALL).inner, beta1, beta2 },
      }),
    ),
  },
  {
    name: "small-batch",
    question:
      "Small model, batches of 32 instead of 8: is averaging better where a contributor's own gradient is less noisy?",
    seeds: SEEDS,
    reference: "synchronous-0.002",
    arms: atRates({ ...SMALL, batch: 32 }, [synchronous, fedAvg, diloco, standard, fading], [2e-3, 4e-3]),
  },
  {
    name: "small-uplink",
    question: "Small model, the downlink exact: how much must go up?",
    seeds: SEEDS,
    reference: "up-all",
    arms: [
      varied("up-all", "Everything goes up and comes down exactly", { uplink: DENSE, downlink: DENSE }),
      ...[64, 128, 256, 512, 1_024].map((keep) =>
        varied(`up-${keep}`, `Of 4,096 values ${keep} go up`, { uplink: { ...uplink, keep }, downlink: DENSE }),
      ),
      ...[0, 0.2, 0.5, 0.8, 0.95, 1].map((beta) =>
        varied(`up-256-beta-${beta}`, `Of 4,096 values 256 go up; what is left fades by ${beta}`, {
          uplink: { ...uplink, beta },
          downlink: DENSE,
        }),
      ),
    ],
  },
  {
    name: "small-downlink",
    question: "Small model, the default's uplink: how much must come down?",
    seeds: SEEDS,
    reference: "down-all",
    arms: [
      varied("down-all", "The merged update comes down exactly", { downlink: DENSE }),
      ...[256, 512, 1_024, 2_048, 4_096].map((keep) =>
        varied(`down-${keep}`, `Of 4,096 values ${keep} come down`, { downlink: { ...downlink, keep } }),
      ),
      ...[0, 0.8, 0.9, 0.99, 1].map((beta) =>
        varied(`down-1024-beta-${beta}`, `Of 4,096 values 1,024 come down; what is left fades by ${beta}`, {
          downlink: { ...downlink, beta },
        }),
      ),
    ],
  },
  {
    name: "small-newcomers",
    question:
      "Small model, of 8 contributors 30 % vanish each round and come back with an empty disk: should they send denser updates?",
    seeds: SEEDS,
    reference: "as-all",
    arms: [uplink.keep, 512, 1_024, 2_048].map((keep) =>
      arm(
        SMALL,
        keep === uplink.keep ? "as-all" : `keep-${keep}`,
        `Newcomers keep ${keep} of 4,096 values in their first two contributions`,
        {
          vanishShare: VANISH_SHARE,
          forgets: true,
          charter: { newcomers: { contributions: 2, keep } },
        },
      ),
    ),
  },
  {
    name: "small-ahead",
    question: "Small model, slow links: what does training ahead while updates travel give, and what does it cost?",
    seeds: SEEDS,
    reference: "waits",
    arms: [
      arm(SMALL, "waits", "Devices wait for the next version", { links: NARROW }),
      ...[1, 0.5].map((aheadShare) =>
        arm(SMALL, `ahead-${aheadShare}`, `Devices train ahead, and ${aheadShare} of what that made is kept`, {
          links: NARROW,
          charter: { round: { ...charterOf(SMALL).round, aheadMax: SMALL.steps - 1, aheadShare } },
        }),
      ),
    ],
  },
  {
    name: "links",
    question:
      "25 million parameters at 2 Mbit/s up and 20 down, 0.3 s a step: how long do devices stand idle? Nothing is trained",
    seeds: [1],
    reference: "waits",
    arms: [
      { name: "waits", sentence: "Devices wait for the next version", aheadMax: 0, links: RURAL },
      { name: "ahead", sentence: "Devices train ahead", aheadMax: 29, links: RURAL },
      {
        name: "ahead-1-mbit",
        sentence: "Devices train ahead, at 1 Mbit/s up",
        aheadMax: 29,
        links: { ...RURAL, upMbitPerS: 1 },
      },
    ].map(({ name, sentence, aheadMax, links }) => {
      const scale: Scale = { model: MIDDLING_MODEL, contributors: 4, rounds: 12, steps: 30 };
      const round = { ...charterOf(scale).round, trainMs: 60_000, graceMs: 60_000, aheadMax };
      const devices: Devices = { stepMs: 300, spread: 1 };
      return arm(scale, name, sentence, { work: "noise", devices, links, charter: { round, trust: TRUSTING } });
    }),
  },
  {
    name: "small-outer",
    question: "Small model, the default's compression: which outer step?",
    seeds: SEEDS,
    reference: "rate-1-momentum-0-clip-1",
    arms: [
      [1, 0, 1],
      [1, 0, 0],
      [1, 0, 2],
      [0.7, 0, 1],
      [1.4, 0, 1],
      [1, 0.3, 1],
      [0.7, 0.6, 1],
      [0.7, 0.9, 1],
    ].map(([learningRate = 1, momentum = 0, clipToMedian = 0]) =>
      varied(
        `rate-${learningRate}-momentum-${momentum}-clip-${clipToMedian}`,
        `Outer rate ${learningRate}, momentum ${momentum}, ${clipToMedian === 0 ? "no clipping" : "clipped to the median norm"}`,
        { outer: { ...outer, learningRate, momentum, clipToMedian } },
      ),
    ),
  },
  {
    name: "sample-density",
    question: "What do denser and sparser updates cost and give?",
    seeds: SEEDS,
    reference: "up-128-down-1024",
    arms: [
      [64, 1_024],
      [128, 512],
      [128, 1_024],
      [256, 1_024],
      [256, 4_096],
      [1_024, 4_096],
    ].map(([up = 1, down = 1]) =>
      arm(SAMPLE, `up-${up}-down-${down}`, `Of 4,096 values ${up} go up and ${down} come down`, {
        charter: { uplink: { ...uplink, keep: up }, downlink: { ...downlink, keep: down } },
      }),
    ),
  },
];
