/** One kind of fault, made many times under load: several acts to a stage, and the oracle's judgement after each and at the end of each stage. */
import { messageIn } from "../../src/base/assert.ts";
import { createRng } from "../../src/base/rng.ts";
import { FAIR, type LineCounts } from "../fixtures/line.ts";
import { startCrowd, type Crowd } from "./crowd.ts";
import type { Kind, Recovery } from "./kinds.ts";
import { Stage } from "./stage.ts";
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
  /** Verdicts "accepted" that contributors were told. */
  readonly accepted: number;
  readonly refused: number;
  readonly failures: readonly string[];
  readonly counts: LineCounts;
  readonly ends: readonly string[];
  readonly seconds: number;
}

export async function runCampaign(kind: Kind, { seed, from, count, onAct }: CampaignOptions): Promise<Report> {
  const [recoveries, failures, ends]: [Recovery[], string[], string[]] = [[], [], []];
  const counts: LineCounts = { packets: 0, lost: 0, late: 0, segmentsLost: 0 };
  let [acts, accepted, refused] = [0, 0, 0];
  const beginMs = performance.now();
  for (let next = from; next < from + count;) {
    const stage = await Stage.open(kind.stage);
    const crowd = await startCrowd({
      members: kind.members,
      seed: seed + next,
      ports: () => stage.ports(),
      onSlow: (sentence) => onAct(`slow: ${sentence}`),
    });
    const ledger = new LedgerReader();
    const last = Math.min(next + ACTS_A_STAGE, from + count);
    const fail = (act: number | string, why: string): void => {
      failures.push(`${kind.name}, seed ${seed}, act ${act}: ${why}`);
    };
    const first = next;
    try {
      await crowd.goesOn(WARM_MS);
      for (let good = true; good && next < last; next += 1) {
        const said: string[] = [];
        const rng = createRng("faults", kind.name, seed, next);
        acts += 1;
        try {
          const recovery = await kind.act({ stage, crowd, rng, say: (sentence) => said.push(sentence) });
          recoveries.push(recovery);
          const told = [...crowd.told]; // what is told from here on may not be read any more
          await ledger.readOn(stage.leader());
          const lost = lostOf(told, ledger.accepted);
          const own = kind.stage.mayEnd === true ? [] : stage.ends;
          good = lost.length + own.length === 0;
          [...lost.map(({ detail }) => `lost: ${detail}`), ...own].forEach((why) => fail(next, why));
          const lead = recovery.leadMs === undefined ? "" : `, led after ${Math.round(recovery.leadMs)} ms`;
          onAct(
            `${kind.name} ${next}: ${said.join("; ")}${lead}, all went on after ${Math.round(recovery.againMs)} ms`,
          );
        } catch (error) {
          good = false;
          fail(
            next,
            `${said.join("; ")}: ${messageIn(error)}; relays: ${stage.ends.join("; ") || "as they should be"}`,
          );
        }
      }
      crowd.members.forEach(({ line }) => line.set(FAIR));
      const findings = await examineStage(stage, crowd, ledger);
      findings.forEach(({ rule, detail }) => fail(`${first} to ${next - 1}`, `not so: ${rule}: ${detail}`));
      if (first === from) {
        (await blindSpots(crowd.told, ledger.entries)).forEach((rule) =>
          fail("none", `the oracle does not see that "${rule}" is broken`),
        );
      }
    } catch (error) {
      fail(`${first} to ${next - 1}`, messageIn(error));
      next = Math.max(next, first + 1);
    } finally {
      accepted += crowd.told.filter(({ verdict }) => verdict.type === "accepted").length;
      refused += crowd.told.filter(({ verdict }) => verdict.type === "refused").length;
      addCounts(counts, crowd);
      ends.push(...stage.ends);
      await crowd.close();
      await stage.close();
    }
  }
  const seconds = (performance.now() - beginMs) / 1_000;
  return { kind: kind.name, acts, recoveries, accepted, refused, failures, counts, ends, seconds };
}

function addCounts(sum: LineCounts, { members }: Crowd): void {
  for (const { line } of members) {
    for (const name of ["packets", "lost", "late", "segmentsLost"] as const) {
      sum[name] += line.counts[name];
    }
  }
}
