/** The named experiments. All arms of one share model, data and devices unless they say otherwise. */
import {
  adamw,
  ahead,
  arm,
  asStarted,
  atMatrixRate,
  atRate,
  atRates,
  BATCH,
  byNorm,
  changed,
  charterOf,
  churn,
  DENSE,
  dense,
  diloco,
  downlink,
  EXACT,
  fading,
  falling,
  fewer,
  fedAvg,
  five,
  HOME,
  inRounds,
  LARGER,
  late,
  MIDDLING_MODEL,
  NARROW,
  nesterov,
  notClipped,
  PLAIN_MEAN,
  plainMean,
  PROOF,
  rates,
  RURAL,
  SAMPLE,
  type Scale,
  SEEDS,
  sends,
  settling,
  SMALL,
  SMALL_BATCH,
  SMALL_BY_SOURCE,
  standard,
  steadily,
  stretched,
  synchronous,
  thinly,
  TINY_MODEL,
  TRUSTING,
  uplink,
  VANISH_SHARE,
  waits,
} from "./arms.ts";
import { SAMPLE_MODEL } from "../src/protocol/sample.ts";
import type { Devices, Experiment } from "./experiment.ts";

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
  ...[
    { name: "sample-start", run: "What `npm start` begins", scale: { ...SAMPLE, rounds: 30, steps: 40 } },
    { name: "small-start", run: "The same with a small model and longer", scale: { ...SMALL, rounds: 120, steps: 40 } },
  ].map(({ name, run, scale }) => ({
    name,
    question: `${run}, with eight devices that take 40 steps a round: is it within 1 % of data parallel with its batches and rates?`,
    seeds: SEEDS,
    reference: "synchronous",
    arms: [
      ...[synchronous, standard, plainMean, ahead, diloco, fedAvg].map((make) => asStarted(make(scale))),
      fading(asStarted(standard(scale)), 60),
      ...[0.25, 0.45].map((share) => settling(asStarted(standard(scale)), share, 60)),
      asStarted(nesterov(scale, { learningRate: 1, momentum: 0.6, radial: false })),
    ],
  })),
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
    name: "small-churn",
    question: "The same for a small model",
    seeds: SEEDS,
    reference: "steady-8",
    arms: churn(TINY_MODEL, { rounds: 40, steps: 30 }),
  },
  ...(["whole", "by-source"] as const).map((split) => ({
    name: split === "whole" ? "sample-batch" : "sample-batch-by-source",
    question: `Sample model, batches of 32 and 30 rounds of 15 steps, ${split === "whole" ? "everyone draws from all text" : "each contributor has one of three sources"}: is the default within 1 % of data parallel?`,
    seeds: SEEDS,
    reference: "synchronous",
    arms: [
      ...[synchronous, standard, diloco, fedAvg].map((make) => make({ ...BATCH, split })),
      ...[synchronous, diloco, fedAvg].map((make) => adamw(make({ ...BATCH, split }))),
      adamw(atRate(synchronous, { ...BATCH, split }, 4e-3)),
    ],
  })),
  {
    name: "sample-rates",
    question:
      "Which rates are best for data parallel and the default, with Muon and with AdamW? The comparison is fair at each one's best",
    seeds: [1],
    reference: "synchronous-matrix-0.02",
    arms: rates(SAMPLE),
  },
  {
    name: "sample-few",
    question:
      "Sample model, 10 rounds at a constant learning rate, as in a run that has just begun: should few contributors send more each?",
    seeds: [1],
    reference: "1-default",
    arms: [1, 2, 4, 8].flatMap((contributors) => {
      const scale: Scale = { ...SAMPLE, contributors, rounds: 10 };
      const round = { ...charterOf(scale).round, decayRounds: 0, decayTo: 1 };
      const who = contributors === 1 ? "One alone" : `${contributors} contributors`;
      const each = { ...uplink, together: 0 };
      return [
        arm(scale, `${contributors}-default`, `${who}, as in the default`, { charter: { round } }),
        arm(scale, `${contributors}-each-${each.keep}`, `${who}, each sends ${each.keep} of 4,096 values`, {
          charter: { round, uplink: each },
        }),
      ];
    }),
  },
  {
    name: "small-rates",
    question: "The same for a small model, with batches of 32",
    seeds: SEEDS,
    reference: "synchronous-matrix-0.02",
    arms: rates({ ...SMALL, batch: 32, rounds: 30 }),
  },
  {
    name: "small-muon",
    question:
      "Small model, batches of 32: what do Muon and stretching the mean to the contributors' own norm give, where everything is sent?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: [synchronous(SMALL_BATCH), fedAvg(SMALL_BATCH), stretched(SMALL_BATCH)].flatMap((made) => [
      made,
      adamw(made),
    ]),
  },
  {
    name: "small-parts",
    question:
      "Small model, batches of 32, Muon: what does each part of the default give and cost, one changed at a time?",
    seeds: SEEDS,
    reference: "default",
    arms: [
      standard(SMALL_BATCH),
      synchronous(SMALL_BATCH),
      stretched(SMALL_BATCH),
      plainMean(SMALL_BATCH),
      ...[64, 128, 512, 1_024].map((keep) => sends(SMALL_BATCH, keep)),
      changed("up-bits-2", "The largest values go up with 2 bits", { uplink: { ...uplink, bits: 2 } }),
      changed("up-all", "Everything goes up exactly", { uplink: EXACT }),
      changed("not-carried", "Training begins from the base alone, and what is left fades by 0.2", {
        uplink: { ...uplink, carry: false, beta: 0.2 },
      }),
      changed("carry-0.9", "What is left fades by 0.9", { uplink: { ...uplink, beta: 0.9 } }),
      ...[
        [512, 2],
        [1_536, 1],
        [4_096, 4],
      ].map(([keep = 1, bits = 1]) =>
        changed(`down-${keep}-bits-${bits}`, `Of 4,096 values ${keep} come down, with ${bits} bits`, {
          downlink: { ...downlink, keep, bits: bits as 1 },
        }),
      ),
      changed("down-all", "The merged update comes down exactly", { downlink: DENSE }),
      ...[5, 45].flatMap((steps) => [standard, stretched].map((make) => inRounds(make(SMALL_BATCH), steps))),
      inRounds(stretched(SMALL_BATCH), 1),
      thinly(inRounds(standard(SMALL_BATCH), 5)),
      ...[
        [0.7, 0],
        [1.4, 0],
        [1, 0.3],
        [0.7, 0.6],
      ].map(([learningRate = 1, momentum = 0]) => nesterov(SMALL_BATCH, { learningRate, momentum, radial: true })),
      notClipped(SMALL_BATCH),
      byNorm(SMALL_BATCH, 12),
      falling(standard(SMALL_BATCH), 0.7),
      ahead(SMALL_BATCH),
    ],
  },
  {
    name: "small-averaging",
    question: "Small model: averaging takes noise away, so does it bear a larger inner rate?",
    seeds: SEEDS,
    reference: "synchronous-adamw",
    arms: [adamw(synchronous(SMALL)), ...atRates(SMALL, [(scale) => adamw(fedAvg(scale))], [2e-3, 4e-3, 6e-3, 8e-3])],
  },
  {
    name: "small-momentum",
    question:
      "Small model, dense deltas, as many tokens in 40 rounds of 15 steps or 10 of 60: does large outer momentum hurt at short rounds, as published?",
    seeds: SEEDS,
    reference: "steps-15-momentum-0",
    arms: [15, 60].flatMap((steps) =>
      [0, 0.5, 0.9].map((momentum) => ({
        ...adamw(
          dense(
            { ...SMALL, steps, rounds: 600 / steps },
            {
              name: "dense",
              sentence: `Rounds of ${steps} steps, outer rate 0.7, momentum ${momentum}`,
              outer: { ...PLAIN_MEAN, learningRate: 0.7, momentum },
            },
          ),
        ),
        name: `steps-${steps}-momentum-${momentum}`,
      })),
    ),
  },
  ...([120, 480] as const).map((rounds) => {
    const scale = { ...SMALL_BATCH, rounds };
    const short = inRounds(atMatrixRate(standard, scale, 0.01), 5);
    return {
      name: rounds === 120 ? "small-long" : "small-longest",
      question: `Small model, batches of 32, ${rounds} rounds: does the distance to data parallel shrink as training goes on?`,
      seeds: SEEDS,
      reference: "synchronous",
      arms: [
        ...five(scale),
        ...[2, 4].map((contributors) => fewer({ ...scale, contributors })),
        stretched(scale),
        plainMean(scale),
        ...[0.3, 0.6].map((share) => falling(standard(scale), share)),
        falling(stretched(scale), 0.6),
        ...[128, 512].map((keep) => falling(sends(scale, keep), 0.6)),
        ...[0.005, 0.01].flatMap((rate) => [synchronous, standard].map((make) => atMatrixRate(make, scale, rate))),
        short,
        thinly(short),
        nesterov(scale, { learningRate: 0.6, momentum: 0.5, radial: true }),
        nesterov(scale, { learningRate: 1, momentum: 0.5, radial: false }),
      ],
    };
  }),
  ...[
    { name: "small-batch-128", batch: 128, rounds: 30 },
    { name: "small-batch-128-long", batch: 128, rounds: 120 },
    { name: "small-batch-512", batch: 512, rounds: 30 },
  ].map(({ name, batch, rounds }) => ({
    name,
    question: `Small model, batches of ${batch}, ${rounds} rounds: does the distance to data parallel shrink as a contributor's own gradient is less noisy?`,
    seeds: SEEDS,
    reference: "synchronous",
    arms: [synchronous, standard, stretched].map((make) => make({ ...SMALL_BATCH, batch, rounds })),
  })),
  {
    name: "small-batch-8",
    question:
      "Small model, as many tokens and merges in rounds of 60 steps with batches of 8: should a contributor take many small steps or few large ones?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: [synchronous, standard].map((make) => make({ ...SMALL, rounds: 30, steps: 60 })),
  },
  {
    name: "small-by-source",
    question: "Small model, each contributor has one of three sources: what does averaging, and judging, make of that?",
    seeds: SEEDS,
    reference: "synchronous",
    arms: [
      ...[synchronous, standard, plainMean, notClipped, stretched, fedAvg, diloco].map((make) => make(SMALL_BY_SOURCE)),
      ...[6, 12].map((power) => byNorm(SMALL_BY_SOURCE, power)),
      ...[standard, plainMean, fedAvg].map((make) => inRounds(make(SMALL_BY_SOURCE), 5)),
    ],
  },
  {
    name: "small-batch",
    question:
      "Small model, AdamW for all, batches of 32 instead of 8: is averaging better where a contributor's own gradient is less noisy?",
    seeds: SEEDS,
    reference: "synchronous-adamw-0.002",
    arms: atRates(
      { ...SMALL, batch: 32 },
      [synchronous, fedAvg, diloco, standard].map((way) => (scale: Scale) => adamw(way(scale))),
      [2e-3, 4e-3],
    ),
  },
  {
    name: "small-newcomers",
    question:
      "Small model, of 8 contributors 30 % vanish each round and come back with an empty disk: should they send denser updates?",
    seeds: SEEDS,
    reference: "as-all",
    arms: [uplink.keep, 512, 1_024, 2_048].map((keep) =>
      arm(
        SMALL_BATCH,
        keep === uplink.keep ? "as-all" : `keep-${keep}`,
        `Newcomers keep ${keep} of 4,096 values in their first two contributions`,
        { charter: { newcomers: { contributions: 2, keep } }, vanishShare: VANISH_SHARE, forgets: true },
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
      ...[NARROW, HOME].flatMap((links) => [waits, ahead].map((make) => steadily(make(SMALL), links))),
    ],
  },
  {
    name: "small-late",
    question:
      "Small model, the updates of 2 of 4 contributors arrive one round late: what should they weigh with the next?",
    seeds: SEEDS,
    reference: "in-time",
    arms: [
      late("late-0", "What is late is refused", 0),
      ...[0.5, 1].map((share) => late(`late-${share}`, `What is late weighs ${share} of what it would in time`, share)),
      late("in-time", "Nobody is late", null),
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
      return arm(scale, name, sentence, {
        work: "noise",
        devices,
        links,
        // Each sends as much as one of eight or more does.
        charter: { round, trust: TRUSTING, uplink: { ...uplink, together: 0 } },
      });
    }),
  },
  {
    name: "sample-density",
    question: "Sample model: what do denser and sparser updates cost and give?",
    seeds: SEEDS,
    reference: "up-256-down-1024",
    arms: [
      [128, 512],
      [256, 512],
      [256, 1_024],
      [512, 2_048],
    ].map(([up = 1, down = 1]) =>
      arm(SAMPLE, `up-${up}-down-${down}`, `Of 4,096 values ${up} go up and ${down} come down`, {
        charter: { uplink: { ...uplink, keep: up, together: 0 }, downlink: { ...downlink, keep: down } },
      }),
    ),
  },
];
