/** One kind of fault, made many times under load: several acts to a stage, and the oracle's judgement after each and at the end of each stage. */
import { messageIn } from "../../src/base/assert.ts";
import { createRng } from "../../src/base/rng.ts";
import { FAIR, type LineCounts } from "../fixtures/line.ts";
import { startCrowd, type Crowd } from "./crowd.ts";
import type { Kind, Recovery } from "./kinds.ts";
import { runOf, Stage } from "./stage.ts";
import { blindSpots, examineStage, LedgerReader, lostOf } from "./verdict.ts";

/** Then a new run begins: a ledger that grows makes starts slower, and a failure's traces should be short. */
const ACTS_A_STAGE = 20;
const WARM_MS = 60_000;

export interface CampaignOptions {
  readonly seed: number;
  readonly from: number;
  readonly count: number;
  readonly onAct: (sentence: string) => void;
}

export interface Report {
  readonly kind: string;
  readonly acts: number;
  readonly recoveries: readonly Recovery[];
  /** Verdicts that contributors were told. */
  readonly accepted: number;
  readonly refused: number;
  readonly failures: readonly string[];
  readonly counts: LineCounts;
  /** Relays that ended by themselves, with why. */
  readonly ends: readonly string[];
  readonly seconds: number;
}

/** What has been seen so far. */
interface Tally {
  acts: number;
  readonly recoveries: Recovery[];
  accepted: number;
  refused: number;
  readonly failures: string[];
  readonly counts: LineCounts;
  readonly ends: string[];
}

export async function runCampaign(kind: Kind, options: CampaignOptions): Promise<Report> {
  const { from, count } = options;
  const beginMs = performance.now();
  const counts: LineCounts = { packets: 0, lost: 0, late: 0, segmentsLost: 0 };
  const tally: Tally = { acts: 0, recoveries: [], accepted: 0, refused: 0, failures: [], counts, ends: [] };
  for (let next = from; next < from + count;) {
    next = await runStage(kind, { ...options, from: next, count: Math.min(ACTS_A_STAGE, from + count - next) }, tally);
  }
  return { kind: kind.name, ...tally, seconds: (performance.now() - beginMs) / 1_000 };
}

/** Resolves to the number of the act that comes next. */
async function runStage(kind: Kind, options: CampaignOptions, tally: Tally): Promise<number> {
  const { seed, from, count, onAct } = options;
  const stage = await Stage.open(kind.stage);
  const crowd = await startCrowd({
    members: kind.members,
    seed: seed + from,
    ports: () => stage.ports(),
    onSlow: (sentence) => onAct(`slow: ${sentence}`),
  });
  const ledger = new LedgerReader();
  let next = from;
  const fail = (act: number | string, why: string): void => {
    tally.failures.push(`${kind.name}, seed ${seed}, act ${act}: ${why}`);
    onAct(tally.failures.at(-1) ?? "");
  };
  try {
    await crowd.goesOn(WARM_MS);
    for (let good = true; good && next < from + count; next += 1) {
      const why = await runAct(kind, { stage, crowd, ledger, seed, act: next, onAct }, tally);
      why.forEach((sentence) => fail(next, sentence));
      good = why.length === 0;
    }
    crowd.members.forEach(({ line }) => line.set(FAIR));
    const findings = await examineStage(stage, crowd, ledger);
    findings.forEach(({ rule, detail }) => fail(`${from} to ${next - 1}`, `it is not so that ${rule}: ${detail}`));
    const blind =
      tally.acts === next - from
        ? await blindSpots((await runOf(stage.leader())).charter, crowd.told, ledger.entries)
        : [];
    blind.forEach((rule) => fail("none", `the oracle does not see where it is not so that ${rule}`));
  } catch (error) {
    fail(`${from} to ${next - 1}`, messageIn(error));
  } finally {
    tally.accepted += crowd.told.filter(({ verdict }) => verdict.type === "accepted").length;
    tally.refused += crowd.told.filter(({ verdict }) => verdict.type === "refused").length;
    addCounts(tally.counts, crowd);
    tally.ends.push(...stage.ends);
    await crowd.close();
    await stage.close();
  }
  return Math.max(next, from + 1);
}

interface ActOptions extends Pick<CampaignOptions, "seed" | "onAct"> {
  readonly stage: Stage;
  readonly crowd: Crowd;
  readonly ledger: LedgerReader;
  readonly act: number;
}

/** Resolves to what went wrong. */
async function runAct(
  kind: Kind,
  { stage, crowd, ledger, seed, act, onAct }: ActOptions,
  tally: Tally,
): Promise<readonly string[]> {
  const said: string[] = [];
  const rng = createRng("faults", kind.name, seed, act);
  tally.acts += 1;
  try {
    const recovery = await kind.act({ stage, crowd, rng, say: (sentence) => said.push(sentence) });
    tally.recoveries.push(recovery);
    const lead = recovery.leadMs === undefined ? "" : `, led after ${Math.round(recovery.leadMs)} ms`;
    onAct(`${kind.name} ${act}: ${said.join("; ")}${lead}, all went on after ${Math.round(recovery.againMs)} ms`);
    const told = [...crowd.told]; // what is told from here on may not be read any more
    await ledger.readOn(stage.leader());
    const lost = lostOf(told, ledger.accepted).map(({ rule, detail }) => `it is not so that ${rule}: ${detail}`);
    return kind.stage.mayEnd === true ? lost : [...lost, ...stage.ends];
  } catch (error) {
    const ends = stage.ends.length === 0 ? "" : `; ${stage.ends.join("; ")}`;
    return [`${said.join("; ")}: ${messageIn(error)}${ends}`];
  }
}

function addCounts(sum: LineCounts, { members }: Crowd): void {
  for (const { line } of members) {
    for (const name of ["packets", "lost", "late", "segmentsLost"] as const) {
      sum[name] += line.counts[name];
    }
  }
}
