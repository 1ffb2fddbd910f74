/**
 * What an arm and a seed amount to: the charter, the texts, the initial weights, and the contributors with their keys, data
 * and devices. The same for every way of training, so that arms differ in nothing that they do not say.
 */
import { HeddleError, present } from "../src/base/assert.ts";
import type { Bytes, ContributorId, Digest } from "../src/base/bytes.ts";
import { createRng, permutation } from "../src/base/rng.ts";
import { createCorpus, type Corpus } from "../src/data/corpus.ts";
import { initialParameters } from "../src/model/layout.ts";
import { checkCharter } from "../src/protocol/charter-codec.ts";
import type { Charter } from "../src/protocol/charter.ts";
import { contributorIdOf } from "../src/protocol/codec.ts";
import { sampleCharter } from "../src/protocol/sample.ts";
import { createKeyRegistry, type KeyRegistry, type SimKey } from "../src/sim/keys.ts";
import type { Arm } from "./experiment.ts";
import { readSources, type Source } from "./sources.ts";

export interface Setting {
  readonly arm: Arm;
  readonly seed: number;
  readonly charter: Charter;
  readonly initial: Float32Array<ArrayBuffer>; // [P]
  readonly train: Corpus;
  readonly evaluation: Corpus;
  readonly sources: readonly { readonly name: string; readonly heldOut: Corpus }[];
  readonly shards: ReadonlyMap<Digest, Bytes>;
  readonly registry: KeyRegistry;
  readonly contributors: readonly Participant[];
}

export interface Participant {
  readonly number: number;
  readonly id: ContributorId;
  readonly key: SimKey;
  /** What it alone trains on; undefined where it draws from the charter's texts. */
  readonly own: Corpus | undefined;
  /** Virtual time of one of its steps. */
  readonly stepMs: number;
}

/** Throws HeddleError "bad-input" for an arm whose charter is not one. */
export function createSetting(arm: Arm, seed: number, sources: readonly Source[] = readSources(arm.sources)): Setting {
  const charter = checkedCharter(arm, seed, sources);
  const cuts = sources.flatMap((source) => [source.train, source.evaluation]);
  const registry = createKeyRegistry();
  return {
    arm,
    seed,
    charter,
    initial: initialParameters(charter.model),
    train: createCorpus(sources.flatMap((source) => source.train.shards)),
    evaluation: createCorpus(sources.flatMap((source) => source.evaluation.shards)),
    sources: sources.map(({ name, evaluation: { shards } }) => ({ name, heldOut: createCorpus(shards) })),
    shards: new Map(cuts.flatMap(({ record, shards }) => shards.map((bytes, i) => [digestAt(record, i), bytes]))),
    registry,
    contributors: participants(arm, { seed, registry, sources }),
  };
}

/** The charter of an arm's run with `seed` on `sources`. Throws HeddleError "bad-input" where that is none. */
export function checkedCharter(arm: Arm, seed: number, sources: readonly Source[]): Charter {
  const train = sources.map((source) => source.train.record);
  const evaluation = {
    ...present(sources[0], "a source").evaluation.record,
    name: "held-out",
    licence: [...new Set(sources.map((source) => source.evaluation.record.licence))].join("; "),
    shards: sources.flatMap((source) => source.evaluation.record.shards),
  };
  const changes = { ...arm.charter, model: { ...arm.charter.model, seed } };
  const checked = checkCharter({ ...sampleCharter(train, evaluation), name: arm.name, ...changes, seed });
  if (!checked.ok) {
    throw new HeddleError("bad-input", `Cannot run arm "${arm.name}": ${checked.detail}`);
  }
  return checked.value;
}

function digestAt({ shards }: Source["train"]["record"], i: number): Digest {
  return present(shards[i], "a shard").digest;
}

interface Among {
  readonly seed: number;
  readonly registry: KeyRegistry;
  readonly sources: readonly Source[];
}

function participants({ contributors, split, devices }: Arm, { seed, registry, sources }: Among): Participant[] {
  const owned = sources.map(({ train }) => createCorpus(train.shards));
  const ranks = permutation(contributors, createRng("devices", seed));
  return Array.from({ length: contributors }, (_, number) => {
    const key = registry.create("contributor", seed, number);
    const rank = contributors === 1 ? 0 : (ranks[number] ?? 0) / (contributors - 1);
    return {
      number,
      key,
      id: contributorIdOf(key.publicKey),
      own: split === "by-source" ? owned[number % owned.length] : undefined,
      stepMs: Math.round(devices.stepMs * devices.spread ** rank),
    };
  });
}
