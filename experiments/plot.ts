/**
 * The plot of an experiment as SVG: held-out loss against tokens, bytes up, bytes down and simulated time, a line for each
 * arm (the mean over seeds) with a band of one standard deviation. It carries its own colours for light and dark pages, and
 * nothing in it is a picture of text, so it reads at any size.
 */
import type { Experiment } from "./experiment.ts";
import type { Point, RunRecord } from "./record.ts";
import { spreadOf } from "./summary.ts";
import { bytesText, countText, timeText } from "./units.ts";
import { roundBytes } from "./wire.ts";

const WIDTH = 960;
const PANEL = { width: 440, height: 270, left: 56, top: 34, bottom: 44, right: 12 } as const;
const HEAD_HEIGHT = 64;
const LEGEND_ROW_HEIGHT = 22;
const LEGEND_COLUMNS = 3;
/** After Okabe and Ito: told apart by people who see few colours, on white and on black. */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6bd1", "#8c8c3a"];
/** Where there are more lines than colours: each colour whole at first, then once with every pattern. */
const DASHES = ["", ' stroke-dasharray="7 3"', ' stroke-dasharray="2 3"', ' stroke-dasharray="9 3 2 3"'];
/** Of a run's versions the first are left out of the scale: the loss of a model that knows nothing says nothing. */
const UNSCALED_SHARE = 0.2;

interface Axis {
  readonly title: string;
  readonly of: (point: Point) => number;
  readonly text: (value: number) => string;
  readonly scale: "linear" | "log";
}

const AXES: readonly Axis[] = [
  { title: "tokens", of: (point) => point.tokens, text: countText, scale: "linear" },
  { title: "simulated time", of: (point) => point.timeMs, text: timeText, scale: "linear" },
  { title: "bytes up per contributor", of: (point) => roundBytes(point.up), text: bytesText, scale: "log" },
  { title: "bytes down per contributor", of: (point) => roundBytes(point.down), text: bytesText, scale: "log" },
];

interface Line {
  readonly name: string;
  readonly colour: string;
  /** An attribute after the colour's, or nothing. */
  readonly dash: string;
  /** Versions, means over seeds. */
  readonly points: readonly { readonly mean: Point; readonly loss: number; readonly deviation: number }[];
}

/** A complete SVG file; arms without a finished run are left out. */
export function plotOf({ name, question, arms }: Experiment, records: readonly RunRecord[]): string {
  const lines = arms.flatMap((arm, i): Line[] => {
    const runs = records.filter((record) => record.arm.name === arm.name);
    const colour = COLOURS[i % COLOURS.length] as string;
    const dash = DASHES[Math.floor(i / COLOURS.length) % DASHES.length] as string;
    return runs.length === 0 ? [] : [{ name: arm.name, colour, dash, points: meansOf(runs) }];
  });
  const losses = lossRange(lines);
  const legendRows = Math.ceil(lines.length / LEGEND_COLUMNS);
  const top = HEAD_HEIGHT + legendRows * LEGEND_ROW_HEIGHT;
  const height = top + 2 * (PANEL.height + PANEL.top + PANEL.bottom) + 8;
  const panels = AXES.map((axis, i) => {
    const x = 8 + (i % 2) * (PANEL.width + PANEL.left - 16);
    const y = top + Math.floor(i / 2) * (PANEL.height + PANEL.top + PANEL.bottom);
    return `<g transform="translate(${x} ${y})">${panel(axis, lines, { losses, id: i })}</g>`;
  });
  const band = records.some(({ seed }) => seed !== records[0]?.seed)
    ? "; bands: one standard deviation over seeds"
    : "";
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="title desc">`,
    `<title id="title">${escape(name)}</title>`,
    `<desc id="desc">${escape(question)}. Held-out loss of ${escape(lines.map((line) => line.name).join(", "))}.</desc>`,
    `<style>${STYLE}</style>`,
    `<rect class="page" width="${WIDTH}" height="${height}"/>`,
    `<text class="head" x="${PANEL.left}" y="28">${escape(name)}</text>`,
    `<text class="note" x="${PANEL.left}" y="48">Held-out loss, nats per byte${band}</text>`,
    ...lines.map(legend),
    ...panels,
    "</svg>",
    "",
  ].join("\n");
}

const STYLE = [
  "text{font:12px system-ui,sans-serif;fill:#333}.head{font-size:17px;font-weight:600;fill:#111}.note,.tick{fill:#666}",
  ".page{fill:#fff}.grid{stroke:#e6e6e6}.frame{stroke:#bbb;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round}",
  ".band{opacity:.18;stroke:none}",
  "@media(prefers-color-scheme:dark){text{fill:#ddd}.head{fill:#fff}.note,.tick{fill:#aaa}.page{fill:#16181c}",
  ".grid{stroke:#2b2f36}.frame{stroke:#4a4f58}.line{filter:brightness(1.25)}.band{opacity:.28}}",
].join("");

function legend({ name, colour, dash }: Line, i: number): string {
  const x = PANEL.left + (i % LEGEND_COLUMNS) * ((WIDTH - PANEL.left) / LEGEND_COLUMNS);
  const y = HEAD_HEIGHT + 8 + Math.floor(i / LEGEND_COLUMNS) * LEGEND_ROW_HEIGHT;
  return (
    `<path class="line" stroke="${colour}"${dash} d="M${x} ${y}h26"/>` +
    `<text x="${x + 34}" y="${y + 4}">${escape(name)}</text>`
  );
}

/** Versions of all seeds together; a seed that took more of them ends with the shortest. */
function meansOf(runs: readonly RunRecord[]): Line["points"] {
  const count = Math.min(...runs.map(({ points }) => points.length));
  return Array.from({ length: count }, (_, i) => {
    const at = runs.map(({ points }) => points[i] as Point);
    const mean = (value: (point: Point) => number): number => spreadOf(at.map(value)).mean;
    const traffic = (way: "up" | "down"): Point["up"] => ({
      joining: 0,
      updates: mean((point) => point[way].updates),
      judging: mean((point) => point[way].judging),
      messages: mean((point) => point[way].messages),
    });
    const { mean: loss, deviation } = spreadOf(at.map((point) => point.loss));
    const sums = { tokens: mean((point) => point.tokens), timeMs: mean((point) => point.timeMs) };
    return { mean: { ...(at[0] as Point), ...sums, up: traffic("up"), down: traffic("down") }, loss, deviation };
  });
}

function lossRange(lines: readonly Line[]): readonly [number, number] {
  const shown = lines.flatMap(({ points }) => points.slice(Math.max(1, Math.floor(UNSCALED_SHARE * points.length))));
  const values = shown.map(({ loss }) => loss);
  const [low, high] = values.length === 0 ? [0, 1] : [Math.min(...values), Math.max(...values)];
  const room = Math.max(0.02, 0.04 * (high - low));
  return [low - room, high + room];
}

interface Frame {
  readonly losses: readonly [number, number];
  readonly id: number;
}

function panel(axis: Axis, lines: readonly Line[], { losses, id }: Frame): string {
  const [x0, x1, y0, y1] = [PANEL.left, PANEL.width, PANEL.top, PANEL.top + PANEL.height];
  const range = rangeOf(axis, lines, losses[1]);
  const grow = axis.scale === "log" ? Math.log10 : (value: number): number => value;
  const [from, to] = [grow(range[0]), grow(range[1])];
  const placeX = (value: number): number => x0 + ((grow(value) - from) / (to - from)) * (x1 - x0);
  const placeY = (loss: number): number => y1 - ((loss - losses[0]) / (losses[1] - losses[0])) * (y1 - y0);
  const xTicks = axis.scale === "log" ? decades(range) : niceTicks(range, 5);
  const clip = `panel-${id}`;
  return [
    `<clipPath id="${clip}"><rect x="${x0}" y="${y0}" width="${x1 - x0}" height="${y1 - y0}"/></clipPath>`,
    ...niceTicks(losses, 5).map(
      (loss) =>
        `<path class="grid" d="M${x0} ${at(placeY(loss))}H${x1}"/>` +
        `<text class="tick" x="${x0 - 6}" y="${at(placeY(loss) + 4)}" text-anchor="end">${loss.toFixed(decimals(losses))}</text>`,
    ),
    ...xTicks.map(
      (value) =>
        `<path class="grid" d="M${at(placeX(value))} ${y0}V${y1}"/>` +
        `<text class="tick" x="${at(placeX(value))}" y="${y1 + 16}" text-anchor="middle">${axis.text(value)}</text>`,
    ),
    `<rect class="frame" x="${x0}" y="${y0}" width="${x1 - x0}" height="${y1 - y0}"/>`,
    `<text x="${(x0 + x1) / 2}" y="${y1 + 36}" text-anchor="middle">${axis.title}${axis.scale === "log" ? " (log)" : ""}</text>`,
    `<g clip-path="url(#${clip})">`,
    ...lines.map(({ points, colour, dash }) => {
      const placed = points
        .filter(({ mean }) => axis.scale === "linear" || axis.of(mean) > 0)
        .map(({ mean, loss, deviation }) => ({ x: at(placeX(axis.of(mean))), loss, deviation }));
      const path = (toY: (one: (typeof placed)[number]) => number, order = placed): string =>
        order.map((one) => `${one.x} ${at(placeY(toY(one)))}`).join("L");
      const band = placed.some(({ deviation }) => deviation > 0)
        ? `<path class="band" fill="${colour}" d="M${path((one) => one.loss + one.deviation)}L${path((one) => one.loss - one.deviation, placed.toReversed())}Z"/>`
        : "";
      return placed.length === 0
        ? ""
        : `${band}<path class="line" stroke="${colour}"${dash} d="M${path((one) => one.loss)}"/>`;
    }),
    "</g>",
  ].join("");
}

/** From nothing, or from the first bytes of a line that is low enough to be seen, to the most. */
function rangeOf({ of, scale }: Axis, lines: readonly Line[], lossMax: number): readonly [number, number] {
  const shown = lines.flatMap(({ points }) => points.filter(({ loss }) => loss <= lossMax).map(({ mean }) => of(mean)));
  const values = shown.filter((value) => value > 0);
  const most = Math.max(1, ...values);
  return scale === "linear" ? [0, most] : [Math.min(most / 10, ...values) * 0.8, most * 1.25];
}

/** About `count` round numbers within a range. */
function niceTicks([low, high]: readonly [number, number], count: number): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((times) => times * power >= rough) ?? 10);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

function decades([low, high]: readonly [number, number]): number[] {
  const first = Math.ceil(Math.log10(low));
  const powers = Array.from({ length: Math.floor(Math.log10(high)) - first + 1 }, (_, i) => 10 ** (first + i));
  return powers.length >= 2 ? powers : [low, Math.sqrt(low * high), high];
}

function decimals([low, high]: readonly [number, number]): number {
  return high - low < 0.5 ? 2 : 1;
}

/** A tenth of a pixel is enough. */
function at(value: number): number {
  return Math.round(10 * value) / 10;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
