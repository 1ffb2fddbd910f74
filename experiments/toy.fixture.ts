/** Arms of some thousand parameters over a few sentences, for tests of the harness that run in seconds. */
import type { Bytes } from "../src/base/bytes.ts";
import { describeDataset } from "../src/data/shard.ts";
import { encode } from "../src/data/text.ts";
import type { CharterChanges, Arm } from "./experiment.ts";
import { EXPERIMENTS } from "./catalogue.ts";
import { SOURCES, type Source, type SourceName } from "./sources.ts";

const TEXTS: Readonly<Record<SourceName, string>> = {
  "moby-dick": "It was the best of times, it was the worst of times, it was the age of wisdom. ".repeat(8),
  "state-of-the-union": "Fellow citizens of the Senate and of the House of Representatives. ".repeat(9),
  "node-types": "declare function readFile(path: string): Promise<Buffer>; ".repeat(10),
};

export function sourceOf(name: SourceName, text: Bytes = encode(TEXTS[name])): Source {
  const part = (ending: string): Source["train"] => {
    const about = { name: `${name}${ending}`, licence: "CC0-1.0", category: "fully-open" } as const;
    return { record: describeDataset(about, [text]), shards: [text] };
  };
  return { name, train: part(""), evaluation: part("-held-out") };
}

export const TOY_SOURCES: readonly Source[] = SOURCES.map((name) => sourceOf(name));

export type ToyChanges = Partial<Omit<Arm, "charter">> & { readonly charter?: Partial<CharterChanges> };

/** The proof's arm of this name, made small. */
export function toyArm(name: string, { charter: changes, ...rest }: ToyChanges = {}): Arm {
  const proof = EXPERIMENTS.find((experiment) => experiment.name === "proof");
  const arm = proof?.arms.find((each) => each.name === name);
  if (arm === undefined) {
    throw new Error(`There is no arm "${name}"`);
  }
  const { charter } = arm;
  const small = {
    model: { ...charter.model, channels: 8, layers: 1, heads: 2, kvHeads: 1, hidden: 16, time: 16 },
    inner: { ...charter.inner, batch: 2, warmupSteps: 0 },
    round: { ...charter.round, stepsMax: 3, trainMs: 10_000 },
    trust: { ...charter.trust, sequences: 2 },
  };
  return { ...arm, contributors: 3, rounds: 3, ...rest, charter: { ...charter, ...small, ...changes } };
}
