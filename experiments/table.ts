/** The table of an experiment, in Markdown: what each arm reached, beside the reference, and what it sent for it. */
import type { Experiment } from "./experiment.ts";
import type { ArmSummary, Spread } from "./summary.ts";
import { bytesText, countText, timeText } from "./units.ts";

export function tableOf({ name, question, reference }: Experiment, summaries: readonly ArmSummary[]): string {
  const sources = Object.keys(summaries[0]?.losses ?? {});
  const head = [
    "arm",
    "seeds",
    "loss",
    `against ${reference}`,
    ...sources,
    "tokens",
    "up",
    "fewer",
    "down",
    "fewer",
    "judging",
    "once",
    "time",
    "idle",
    "accepted",
    "refused",
  ];
  const rows = summaries.map((summary) => [
    summary.arm.name,
    String(summary.seeds),
    spreadText(summary.loss, (value) => value.toFixed(4)),
    againstText(summary),
    ...sources.map((source) => summary.losses[source]?.mean.toFixed(3) ?? ""),
    countText(summary.tokens),
    bytesText(summary.up),
    timesText(summary.fewerUp),
    bytesText(summary.down),
    timesText(summary.fewerDown),
    bytesText(summary.judging),
    bytesText(summary.joining),
    timeText(summary.timeMs),
    summary.arm.way === "synchronous" ? "" : `${(100 * summary.idleShare).toFixed(1)} %`,
    summary.arm.way === "synchronous" ? "" : String(summary.accepted),
    summary.arm.way === "synchronous" ? "" : String(summary.refused),
  ]);
  const notes = [
    "Loss: held-out, nats per byte, at the end; mean ± standard deviation over seeds. Against: of the same seed, at equal tokens" +
      (summaries.some(({ against, equalTokens }) => against !== null && !equalTokens)
        ? " (†: at each one's end, tokens differ)."
        : "."),
    "Up and down: bytes of one contributor; fewer: than 4 bytes a parameter and step each way, for the same steps; judging: what of" +
      " that validators fetch of others' contributions; once: texts and the first checkpoint. Time is simulated; idle:" +
      " share of it, from the first round on, that a device neither trained nor checked others' work.",
  ];
  return [`### ${name}`, "", question, "", ...markdown([head, ...rows]), "", ...notes, ""].join("\n");
}

function againstText({ against, equalTokens }: ArmSummary): string {
  if (against === null) {
    return "";
  }
  const sign = against.mean < 0 ? "−" : "+";
  const percent = (value: number): string => (100 * Math.abs(value)).toFixed(2);
  const deviation = against.deviation === 0 ? "" : ` ± ${percent(against.deviation)}`;
  return `${sign}${percent(against.mean)}${deviation} %${equalTokens ? "" : " †"}`;
}

function spreadText({ mean, deviation }: Spread, text: (value: number) => string): string {
  return deviation === 0 ? text(mean) : `${text(mean)} ± ${text(deviation)}`;
}

function timesText(times: number | null): string {
  return times === null ? "" : `${times < 10 ? times.toFixed(1) : Math.round(times).toLocaleString("en")}×`;
}

/** Columns as wide as their widest cell; numbers to the right. */
function markdown([head = [], ...rows]: readonly (readonly string[])[]): string[] {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(" | ")} |`;
  const rule = `|${widths.map((width, i) => (i === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(head), rule, ...rows.map(line)];
}
