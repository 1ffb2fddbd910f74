/** Draws the observatory from what is known, and decides nothing. Words come from `words.ts`; `page.ts` listens and keeps. */
import type { Digest } from "../base/bytes.ts";
import type { Finding } from "../coordinator/finding.ts";
import type { ContributionRecord, Moment, RoundRecord } from "../protocol/series.ts";
import { byId, byTag, make, setText } from "../ui/dom.ts";
import { fillFacts } from "../ui/fact-list.ts";
import { lossUnit } from "../ui/facts.ts";
import { asSentence, formatCount } from "../ui/format.ts";
import { TraceElement } from "../ui/trace.ts";
import {
  CHECK_WORDS,
  checkRows,
  contributionWords,
  formatTime,
  momentWords,
  QUANTITIES,
  reasonRows,
  roundFacts,
  scrubWords,
  totalFacts,
  type Sight,
} from "./words.ts";

/** Rows drawn at most in the lists of a round's contributions and of events; the rest is counted. */
const ROWS_MAX = 200;

export type Screen = ReturnType<typeof findScreen>;

/** The parts of the page by name. Throws when the markup lacks one. */
export function findScreen() {
  const traces = QUANTITIES.map(({ name }) => {
    const trace = new TraceElement();
    trace.state = { name, value: "–", note: "", values: [], at: 0 };
    return trace;
  });
  byId("traces").replaceChildren(...traces);
  return {
    state: byId("state"),
    hint: byId("hint"),
    panel: byId("panel"),
    progress: byId<HTMLProgressElement>("progress"),
    verify: byId<HTMLButtonElement>("verify"),
    stop: byId<HTMLButtonElement>("stop"),
    broken: byId("broken"),
    scrub: byTag("heddle-scrub"),
    chart: byTag("heddle-chart"),
    traces,
    contributions: byId("contributions"),
  };
}

/** What changes with a new round: the curve and the values behind the traces. */
export function drawRounds({ chart }: Screen, { rounds, run }: Sight): void {
  chart.unit = run === null ? "" : lossUnit(run);
  chart.points = rounds
    .filter(({ merged, round }) => merged || round === 0)
    .map(({ version, evalLoss, totals, contributors }) => ({
      version,
      loss: evalLoss,
      contributors: totals.accepted === 0 ? 0 : Object.values(contributors).reduce((sum, one) => sum + one, 0),
    }));
}

/** Columns of values, one for each trace; kept until a round is added. */
export function columnsOf(rounds: readonly RoundRecord[]): readonly (readonly number[])[] {
  const shown = rounds.filter(({ round }) => round > 0);
  return QUANTITIES.map(({ of }) => shown.map(of));
}

/** What changes with every move of the slider. */
export function drawSight(screen: Screen, sight: Sight, columns: readonly (readonly number[])[]): void {
  const { rounds, at, run, live } = sight;
  const round = rounds[at];
  screen.scrub.state = { last: Math.max(0, rounds.length - 1), at, live, words: scrubWords(sight) };
  screen.chart.mark = live ? null : (round?.version ?? null);
  if (run !== null) {
    setText(byId("run-name"), run.charter.name);
    setText(byId("run-purpose"), asSentence(run.charter.purpose));
  }
  if (round === undefined) {
    return;
  }
  fillFacts(byId("round-facts"), roundFacts(sight));
  fillFacts(byId("total-facts"), totalFacts(sight));
  const before = rounds.length - (columns[0]?.length ?? 0);
  for (const [i, { name, value, note }] of QUANTITIES.entries()) {
    const state = { name, value: value(round), note: note(rounds, at), at: Math.max(0, at - before) };
    (screen.traces[i] as TraceElement).state = { ...state, values: columns[i] ?? [] };
  }
  drawReasons(sight);
}

function drawReasons(sight: Sight): void {
  const rows = reasonRows(sight);
  const list = byId("reasons");
  const key = rows.map(({ name }) => name).join();
  if (list.dataset["key"] !== key) {
    list.dataset["key"] = key;
    list.replaceChildren(
      ...rows.map(({ name, sentence, state }) =>
        make(
          "li",
          { "data-state": state },
          make("span", { class: "reason-count" }),
          make("span", { class: "reason-name" }, name),
          make("span", { class: "reason-words" }, sentence),
        ),
      ),
    );
  }
  for (const [i, { count }] of rows.entries()) {
    const cell = list.children[i]?.firstElementChild;
    if (cell !== null && cell !== undefined) {
      setText(cell, formatCount(count));
    }
  }
}

/** A round's contributions are read: those of another stay until then, under its title. */
export function drawReading({ contributions }: Screen): void {
  contributions.setAttribute("aria-busy", "true");
}

/** The contributions to a round could not be read. */
export function drawUnread({ contributions }: Screen, round: number, sentence: string): void {
  titleContributions(contributions, round);
  const words = `${asSentence(sentence)} The page asks again when it hears from the relay.`;
  contributions.replaceChildren(make("p", { class: "empty" }, words));
}

function titleContributions(contributions: HTMLElement, round: number): void {
  setText(byId("round-title"), `Contributions to round ${formatCount(round)}`);
  contributions.removeAttribute("aria-busy");
}

export function drawContributions(
  { contributions }: Screen,
  round: number,
  records: readonly ContributionRecord[],
): void {
  titleContributions(contributions, round);
  const rows = records.slice(0, ROWS_MAX).map((record) => {
    const { title, facts, sentence } = contributionWords(record);
    const state = record.judged?.verdict.type ?? "waiting";
    const words = { accepted: "Accepted", refused: "Refused", waiting: "Not judged" }[state];
    return row({ state, words, title, lines: [facts, sentence] });
  });
  const more =
    records.length > ROWS_MAX
      ? [make("p", { class: "more" }, `And ${formatCount(records.length - ROWS_MAX)} more.`)]
      : [];
  contributions.replaceChildren(
    ...(rows.length === 0
      ? [make("p", { class: "empty" }, "Nobody sent a contribution in it.")]
      : [make("ol", { class: "rows", role: "list" }, ...rows), ...more]),
  );
}

/** Events up to the round looked at, the newest first. */
export function drawMoments(moments: readonly Moment[], entry: number): void {
  const past = moments.filter((moment) => moment.entry < entry).toReversed();
  const list = byId("moment-list");
  const key = `${past.length} ${past[0]?.entry ?? ""}`;
  if (list.dataset["key"] === key) {
    return;
  }
  list.dataset["key"] = key;
  const rows = past.slice(0, ROWS_MAX).map((moment) => {
    const { title, sentence } = momentWords(moment);
    const when = `Entry ${formatCount(moment.entry)}, before or in round ${formatCount(moment.round)}`;
    return row({ state: moment.event.type, words: formatTime(moment.timeMs), title, lines: [sentence, when] });
  });
  list.replaceChildren(
    ...(rows.length === 0
      ? [make("p", { class: "empty" }, "Nothing but rounds until then.")]
      : [make("ol", { class: "rows", role: "list" }, ...rows)]),
  );
}

export function drawFindings(findings: readonly Finding[] | null): void {
  byId("findings").replaceChildren(
    ...checkRows(findings).map(({ title, sentences, state }) =>
      row({ state, words: CHECK_WORDS[state], title, lines: sentences }),
    ),
  );
}

/** What to compare with what is known from elsewhere. */
export function drawKeys(relay: string | null, last: { readonly entry: number; readonly digest: Digest } | null): void {
  fillFacts(byId("keys"), [
    { name: "Signed by the key", value: relay ?? "Shown here once the run has been verified." },
    ...(last === null
      ? []
      : [{ name: `SHA-256 of the last entry, number ${formatCount(last.entry)}`, value: last.digest }]),
  ]);
}

interface Row {
  readonly state: string;
  readonly words: string;
  readonly title: string;
  readonly lines: readonly string[];
}

function row({ state, words, title, lines }: Row): HTMLLIElement {
  const mark = make("span", { class: "row-mark", "aria-hidden": "true" });
  return make(
    "li",
    { class: "row", "data-state": state },
    make("span", { class: "row-state" }, mark, words),
    make(
      "div",
      { class: "row-body" },
      make("span", { class: "row-title" }, title),
      ...lines.map((line) => make("span", { class: "row-line" }, line)),
    ),
  );
}
