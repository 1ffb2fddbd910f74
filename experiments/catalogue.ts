/** The named experiments. All arms of one share model, data and devices unless they say otherwise. */
import {
  adamw,
  arm,
  atRate,
  atRates,
  BATCH,
  carrying,
  changed,
  charterOf,
  churn,
  DENSE,
  dense,
  diloco,
  downlink,
  fedAvg,
  five,
  LARGER,
  late,
  lingering,
  MIDDLING_MODEL,
  NARROW,
  outer,
  PLAIN_MEAN,
  PROOF,
  rates,
  RURAL,
  SAMPLE,
  type Scale,
  SEEDS,
  SMALL,
  SMALL_BATCH,
  SPARSE,
  sparse,
  standard,
  stretched,
  synchronous,
  TINY_MODEL,
  TRUSTING,
  uplink,
  VANISH_SHARE,
  varied,
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
  ...(["whole", "by-source"] as const).map((split) => ({
    name: split === "whole" ? "sample-batch" : "sample-batch-by-source",
    question: `Sample model, batches of 32 and 30 rounds of 15 steps, ${split === "whole" ? "everyone draws from all text" : "each contributor has one of three sources"}: is the default within 1 % of data parallel?`,
    seeds: SEEDS,
    reference: "synchronous",
    arms: [
      ...[synchronous, standard, diloco, fedAvg].map((make) => make({ ...BATCH, split })),
      ...[synchronous, diloco, fedAvg].map((make) => adamw(make({ ...BATCH, split }))),
      adamw(atRate(synchronous, { ...BATCH, split }, 4e-3)),
      sparse({ ...BATCH, split }),
      atRate(sparse, { ...BATCH, split }, 4e-3),
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
      "Sample model, 10 rounds at a constant learning rate, as in a run that has just begun: the default, and of `sparse` whether few contributors should send more each",
    seeds: [1],
    reference: "1-default",
    arms: [1, 2, 4, 8].flatMap((contributors) => {
      const scale: Scale = { ...SAMPLE, contributors, rounds: 10 };
      const round = { ...charterOf(scale).round, decayRounds: 0, decayTo: 1 };
      const who = contributors === 1 ? "One alone" : `${contributors} contributors`;
      const each = { ...SPARSE.uplink, beta: 0.8, together: 0 };
      return [
        arm(scale, `${contributors}-default`, `${who}, as in the default`, { charter: { round } }),
        { ...sparse(scale, { round }), name: `${contributors}-together` },
        { ...sparse(scale, { round, uplink: each }), name: `${contributors}-each-128` },
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
    name: "small-turns",
    question:
      "Small model, batches of 32, Muon: at about as many bytes, are chunks in turn better than the largest values of all, and what of it counts?",
    seeds: SEEDS,
    reference: "default",
    arms: [
      standard(SMALL_BATCH),
      changed("plain-mean", "The mean is not stretched", { outer: { ...outer, radial: false } }),
      changed("not-carried", "Training begins from the base alone", { uplink: { ...uplink, carry: false } }),
      changed("turns-5-bits-2", "Chunks go up in one of 5 rounds, with 2 bits", {
        uplink: { ...uplink, turns: 5, bits: 2 },
      }),
      changed("turns-1-bits-1", "All chunks go up in each round: three times the bytes", {
        uplink: { ...uplink, turns: 1 },
      }),
      changed("down-exact", "The merged update comes down exactly", { downlink: DENSE }),
      changed("down-2-bits", "Values come down with 2 bits", { downlink: { ...downlink, bits: 2 } }),
      changed("largest-128", "The largest 128 of 4,096 values go up, 1,024 come down, and the mean is stretched", {
        ...SPARSE,
        outer,
      }),
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
        inner: { ...charterOf(SMALL).inner, matrixRate: 0, beta1, beta2 },
      }),
    ),
  },
  {
    name: "small-batch",
    question:
      "Small model, batches of 32 instead of 8: is averaging better where a contributor's own gradient is less noisy?",
    seeds: SEEDS,
    reference: "synchronous-adamw-0.002",
    arms: atRates(
      { ...SMALL, batch: 32 },
      [...[synchronous, fedAvg, diloco].map((way) => (scale: Scale) => adamw(way(scale))), sparse, lingering],
      [2e-3, 4e-3],
    ),
  },
  {
    name: "small-carry",
    question:
      "Small model: should training begin from what earlier updates left out, and how fast should that fade? Batches of 8 and of 32",
    seeds: SEEDS,
    reference: "batch-32-sparse",
    arms: [8, 32].flatMap((batch) => {
      const scale: Scale = { ...SMALL, batch };
      const ways = [sparse(scale), ...[0.5, 0.8, 0.9, 1].map((beta) => carrying(scale, beta))];
      return ways.map((way) => ({ ...way, name: `batch-${batch}-${way.name}` }));
    }),
  },
  {
    name: "small-uplink",
    question: "Small model, the downlink exact: how much must go up?",
    seeds: SEEDS,
    reference: "up-all",
    arms: [
      varied("up-all", "Everything goes up and comes down exactly", {
        uplink: { ...DENSE, turns: 1, together: 0, carry: false },
        downlink: DENSE,
      }),
      ...[64, 128, 256, 512, 1_024].map((keep) =>
        varied(`up-${keep}`, `Of 4,096 values ${keep} go up`, {
          uplink: { ...SPARSE.uplink, keep, together: 0 },
          downlink: DENSE,
        }),
      ),
      ...[0, 0.2, 0.5, 0.8, 0.95, 1].map((beta) =>
        varied(`up-256-beta-${beta}`, `Of 4,096 values 256 go up; what is left fades by ${beta}`, {
          uplink: { ...SPARSE.uplink, keep: 256, beta, together: 0 },
          downlink: DENSE,
        }),
      ),
    ],
  },
  {
    name: "small-downlink",
    question: "Small model, `sparse`: how much must come down?",
    seeds: SEEDS,
    reference: "down-all",
    arms: [
      varied("down-all", "The merged update comes down exactly", { downlink: DENSE }),
      ...[256, 512, 1_024, 2_048, 4_096].map((keep) =>
        varied(`down-${keep}`, `Of 4,096 values ${keep} come down`, { downlink: { ...SPARSE.downlink, keep } }),
      ),
      ...[0, 0.8, 0.9, 0.99, 1].map((beta) =>
        varied(`down-1024-beta-${beta}`, `Of 4,096 values 1,024 come down; what is left fades by ${beta}`, {
          downlink: { ...SPARSE.downlink, beta },
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
    arms: [SPARSE.uplink.keep, 512, 1_024, 2_048].map((keep) => ({
      ...varied(
        keep === SPARSE.uplink.keep ? "as-all" : `keep-${keep}`,
        `Newcomers keep ${keep} of 4,096 values in their first two contributions`,
        { newcomers: { contributions: 2, keep } },
      ),
      vanishShare: VANISH_SHARE,
      forgets: true,
    })),
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
        charter: { round, trust: TRUSTING },
      });
    }),
  },
  {
    name: "small-outer",
    question: "Small model, `sparse`: which outer step?",
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
        { outer: { ...PLAIN_MEAN, learningRate, momentum, clipToMedian } },
      ),
    ),
  },
  {
    name: "sample-density",
    question: "Sample model, `sparse`: what do denser and sparser updates cost and give?",
    seeds: SEEDS,
    reference: "up-128-down-1024",
    arms: [
      [64, 1_024],
      [128, 512],
      [128, 1_024],
      [256, 1_024],
      [256, 4_096],
      [1_024, 4_096],
    ].map(([up = 1, down = 1]) => ({
      ...sparse(SAMPLE, {
        uplink: { ...SPARSE.uplink, keep: up, together: 0 },
        downlink: { ...SPARSE.downlink, keep: down },
      }),
      name: `up-${up}-down-${down}`,
      sentence: `Of 4,096 values ${up} go up and ${down} come down; AdamW for all`,
    })),
  },
];
