/**
 * The charter's canonical bytes, its digest (which names the run), and its checks: every size within limits, every setting
 * within a range in which training makes sense, every blob of its run no larger than what carries it. A charter that is read
 * from the wire has passed them all, so nothing above has to ask again whether heads divide channels.
 */
import { digestOf, type Bytes, type Digest } from "../base/bytes.ts";
import { excessOf } from "./capacity.ts";
import {
  CATEGORIES,
  type Category,
  type Charter,
  type Compression,
  type Dataset,
  type InnerConfig,
  type ModelConfig,
  type NewcomerConfig,
  type OuterConfig,
  type RoundConfig,
  type Shard,
  type TrustConfig,
  type UplinkConfig,
} from "./charter.ts";
import {
  boolean,
  checked,
  digest,
  encodeValue,
  FieldError,
  integer,
  list,
  oneOf,
  readCanonical,
  real,
  record,
  text,
  type Reader,
} from "./fields.ts";
import {
  BLOB_BYTES_MAX,
  CHARTER_BYTES_MAX,
  DATASETS_MAX,
  DURATION_MS_MAX,
  RELAY_DEPTH_MAX,
  RELAY_VALUES_MAX,
  SHARDS_MAX,
  STEPS_MAX,
  TEXT_CHARS_MAX,
} from "./limits.ts";
import type { ScanLimits } from "./scan.ts";
import { accept, refuse, type Checked } from "./verdict.ts";

/** Settings that have no natural bound end here. */
const SETTING_MAX = 1e9;
const UINT32_MAX = 2 ** 32 - 1;
/** Over so many rounds a learning rate may fall. */
const ROUNDS_MAX = 1e6;

const CHARTER_SCAN: ScanLimits = {
  depthMax: RELAY_DEPTH_MAX,
  valuesMax: RELAY_VALUES_MAX,
  stringBytesMax: 3 * TEXT_CHARS_MAX,
  binBytesMax: 0,
};

const modelFields: Reader<ModelConfig> = record<ModelConfig>({
  vocabulary: integer(2, 2 ** 20),
  channels: integer(2, 65_536),
  layers: integer(1, 1_024),
  heads: integer(1, 1_024),
  kvHeads: integer(1, 1_024),
  hidden: integer(1, 262_144),
  time: integer(1, 65_536),
  tied: boolean,
  ropeBase: real(1, SETTING_MAX),
  normEps: real(1e-12, 1),
  seed: integer(0, UINT32_MAX),
});

const innerFields: Reader<InnerConfig> = record<InnerConfig>({
  batch: integer(1, 65_536),
  learningRate: real(0, 1_000),
  warmupSteps: integer(0, STEPS_MAX),
  beta1: real(0, 1),
  beta2: real(0, 1),
  eps: real(1e-30, 1),
  weightDecay: real(0, 1_000),
  clip: real(0, SETTING_MAX),
  matrixRate: real(0, 1_000),
  matrixMomentum: real(0, 1),
});

const compressionFields: Reader<Compression> = record<Compression>({
  keep: integer(1, 4_096),
  bits: oneOf([1, 2, 3, 4, 64]),
  beta: real(0, 1),
});

const uplinkFields: Reader<UplinkConfig> = record<UplinkConfig>({
  keep: integer(1, 4_096),
  bits: oneOf([1, 2, 3, 4, 64]),
  beta: real(0, 1),
  together: integer(0, 4_096),
  carry: boolean,
});

const newcomerFields: Reader<NewcomerConfig> = record<NewcomerConfig>({
  contributions: integer(0, ROUNDS_MAX),
  keep: integer(1, 4_096),
});

const outerFields: Reader<OuterConfig> = record<OuterConfig>({
  learningRate: real(0, 1_000),
  momentum: real(0, 1),
  clipToMedian: real(0, SETTING_MAX),
  normPower: integer(0, 16),
  radial: boolean,
  radialRounds: integer(0, ROUNDS_MAX),
  endShare: real(0, 1_000),
});

const roundFields: Reader<RoundConfig> = record<RoundConfig>({
  trainMs: integer(1, DURATION_MS_MAX),
  stepsMax: integer(1, STEPS_MAX),
  aheadMax: integer(0, STEPS_MAX),
  aheadShare: real(0, 1),
  graceMs: integer(0, DURATION_MS_MAX),
  quorum: real(0, 1),
  patience: real(0, SETTING_MAX),
  judgeMs: integer(1, DURATION_MS_MAX),
  decayRounds: integer(0, ROUNDS_MAX),
  decayTo: real(0, 1),
  lateShare: real(0, 1),
});

const trustFields: Reader<TrustConfig> = record<TrustConfig>({
  normMax: real(0, SETTING_MAX),
  improvementMin: real(-SETTING_MAX, 1),
  improvementShare: real(0, 1),
  harmMax: real(0, SETTING_MAX),
  auditShare: real(0, 1),
  sequences: integer(1, 4_096),
});

/** What the charter names is fetched by anyone from the relay, so only the category that may travel is read at all. */
const openCategory: Reader<Category> = (value, path) => {
  const category = oneOf(CATEGORIES)(value, path);
  if (category !== "fully-open") {
    throw new FieldError(`Cannot read ${path}: data of the category "${category}" must not travel`);
  }
  return category;
};

const datasetFields: Reader<Dataset> = record<Dataset>({
  name: text(TEXT_CHARS_MAX, { charsMin: 1 }),
  licence: text(TEXT_CHARS_MAX, { charsMin: 1 }),
  category: openCategory,
  shards: list(record<Shard>({ digest: digest<Digest>(), bytes: integer(1, BLOB_BYTES_MAX) }), 1, SHARDS_MAX),
});

const charterFields: Reader<Charter> = record<Charter>({
  name: text(TEXT_CHARS_MAX, { charsMin: 1 }),
  purpose: text(),
  model: modelFields,
  inner: innerFields,
  uplink: uplinkFields,
  newcomers: newcomerFields,
  downlink: compressionFields,
  outer: outerFields,
  round: roundFields,
  trust: trustFields,
  train: list(datasetFields, 0, DATASETS_MAX),
  evaluation: datasetFields,
  seed: integer(0, UINT32_MAX),
});

/** A charter whose parts fit together. */
export const charterReader: Reader<Charter> = (value, path) => {
  const charter = charterFields(value, path);
  const { channels, heads, kvHeads } = charter.model;
  if (channels % heads !== 0 || heads % kvHeads !== 0 || (channels / heads) % 2 !== 0) {
    throw new FieldError(
      `Cannot read ${path}.model: got ${channels} channels, ${heads} heads, ${kvHeads} key heads; ` +
        "heads must divide channels into even parts and key heads must divide heads",
    );
  }
  const { stepsMax, aheadMax, decayTo } = charter.round;
  if (aheadMax >= stepsMax) {
    throw new FieldError(
      `Cannot read ${path}.round: got ${aheadMax} steps ahead, need less than stepsMax, ${stepsMax}`,
    );
  }
  if (decayTo === 0) {
    throw new FieldError(
      `Cannot read ${path}.round.decayTo: at a rate of 0 nothing improves, and everything is refused`,
    );
  }
  const { beta1, beta2, matrixMomentum } = charter.inner;
  if (beta1 === 1 || beta2 === 1) {
    throw new FieldError(`Cannot read ${path}.inner: got ${beta1} and ${beta2}, betas must be less than 1`);
  }
  if (matrixMomentum === 1) {
    throw new FieldError(`Cannot read ${path}.inner.matrixMomentum: with 1 no gradient counts, need less`);
  }
  const excess = excessOf(charter);
  if (excess !== null) {
    throw new FieldError(`Cannot read ${path}.${excess.setting}: ${excess.sentence}`);
  }
  return charter;
};

/** Canonical bytes. The charter must be valid: use `checkCharter` on one that a person wrote. */
export function encodeCharter(charter: Charter): Bytes {
  return encodeValue(charterReader, charter, "charter", 8_192);
}

export function decodeCharter(bytes: Uint8Array): Checked<Charter> {
  if (bytes.length > CHARTER_BYTES_MAX) {
    return refuse("oversized", `Cannot read charter: got ${bytes.length} bytes, need at most ${CHARTER_BYTES_MAX}`);
  }
  return checked(() => readCanonical(charterReader, bytes, "charter", CHARTER_SCAN));
}

/** Checks a charter made by a program or a person: its fields, how they fit together, and its encoded size. */
export function checkCharter(charter: Charter): Checked<Charter> {
  const valid = checked(() => charterReader(charter, "charter"));
  if (!valid.ok) {
    return valid;
  }
  const { length } = encodeCharter(valid.value);
  return length <= CHARTER_BYTES_MAX
    ? accept(valid.value)
    : refuse("oversized", `Cannot use charter: got ${length} bytes, need at most ${CHARTER_BYTES_MAX}`);
}

/** The run's name: SHA-256 of the canonical charter. */
export function charterDigest(charter: Charter): Digest {
  return digestOf(encodeCharter(charter));
}
