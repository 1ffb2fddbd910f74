/**
 * heddle-chart: the loss of the shared base over its versions, as inline SVG. Pointer, touch and arrow keys read single
 * versions out; the element is a slider to assistive technology, whose value text is the readout. Up to a marked version
 * the line is drawn full, faint after it; a press picks the version under it ("heddle-pick"). Redrawn when its data or its width
 * change, never on a timer.
 */
import { makeSvg, make, setText } from "./dom.ts";
import { formatCount, formatLoss, formatPlural } from "./format.ts";
import { extent, linear, ticks, type Scale } from "./scale.ts";

export interface ChartPoint {
  readonly version: number;
  /** Nats per byte or token on held-out text. */
  readonly loss: number;
  readonly contributors: number;
}

const MARGIN = { top: 34, right: 14, bottom: 46, left: 46 };
/** One chart a page. */
const CLIP = "heddle-chart-past";
/** Points drawn at most: more than the pixels of a wide screen tell nothing. */
const POINTS_MAX = 1_000;

export class ChartElement extends HTMLElement {
  #points: readonly ChartPoint[] = [];
  #unit = "";
  #selected: number | null = null;
  #mark: number | null = null;
  #observer: ResizeObserver | null = null;
  #width = 0;
  #height = 260;
  #figure = make("div", { class: "chart-figure" });
  #readout = make("p", { class: "chart-readout" });
  #x: Scale = linear({ from: 0, to: 1, start: 0, end: 1 });
  #y: Scale = this.#x;

  connectedCallback(): void {
    if (this.#observer !== null) {
      return;
    }
    this.replaceChildren(this.#readout, this.#figure);
    this.#figure.tabIndex = 0;
    this.#figure.setAttribute("role", "slider");
    this.#figure.setAttribute("aria-label", "Loss of the shared base by version");
    this.#figure.addEventListener("keydown", (event) => this.#key(event));
    this.#figure.addEventListener("pointermove", (event) => this.#point(event));
    this.#figure.addEventListener("pointerdown", (event) => {
      this.#point(event);
      this.#pick();
    });
    this.#figure.addEventListener("pointerleave", () => this.#select(null));
    this.#figure.addEventListener("blur", () => this.#select(null));
    this.#observer = new ResizeObserver(() => this.#resize());
    this.#observer.observe(this.#figure);
    this.#resize();
  }

  disconnectedCallback(): void {
    this.#observer?.disconnect();
    this.#observer = null;
  }

  get points(): readonly ChartPoint[] {
    return this.#points;
  }

  /** Ascending by version. */
  set points(points: readonly ChartPoint[]) {
    const chosen = this.#selected === null ? undefined : this.#points[this.#selected]?.version;
    this.#points = thin(
      points.filter((point) => Number.isFinite(point.loss)),
      POINTS_MAX,
    );
    // A new version does not take away the one that is being read.
    const index = this.#points.findIndex(({ version }) => version === chosen);
    this.#selected = index === -1 ? null : index;
    this.#draw();
  }

  /** The version that is looked at; null for the newest. */
  set mark(version: number | null) {
    if (version !== this.#mark) {
      this.#mark = version;
      this.#drawCursor();
    }
  }

  /** Of the loss: "nats per byte". Shown with the next points. */
  set unit(unit: string) {
    this.#unit = unit;
  }

  #resize(): void {
    const width = Math.round(this.#figure.clientWidth);
    if (width > 0 && width !== this.#width) {
      this.#width = width;
      this.#height = width < 560 ? 260 : 430;
      this.#draw();
    }
  }

  #key(event: KeyboardEvent): void {
    const last = this.#points.length - 1;
    const now = this.#selected ?? last;
    const big = Math.max(1, Math.round(last / 10));
    if (event.key === "Enter") {
      this.#pick();
    }
    const next = {
      ArrowRight: now + 1,
      ArrowUp: now + 1,
      ArrowLeft: now - 1,
      ArrowDown: now - 1,
      PageUp: now + big,
      PageDown: now - big,
      Home: 0,
      End: last,
    }[event.key];
    if (next !== undefined && last >= 0) {
      event.preventDefault();
      this.#select(Math.min(last, Math.max(0, next)));
    }
  }

  #point(event: PointerEvent): void {
    this.#select(this.#nearest(this.#x.inverse(event.clientX - this.#figure.getBoundingClientRect().left)));
  }

  #pick(): void {
    const point = this.#points[this.#selected ?? -1];
    if (point !== undefined) {
      this.dispatchEvent(new CustomEvent("heddle-pick", { detail: point.version, bubbles: true }));
    }
  }

  /** Index of the point whose version is closest. */
  #nearest(version: number): number | null {
    let best: number | null = null;
    for (const [i, point] of this.#points.entries()) {
      if (best === null || Math.abs(point.version - version) < Math.abs((this.#points[best]?.version ?? 0) - version)) {
        best = i;
      }
    }
    return best;
  }

  #select(index: number | null): void {
    if (index !== this.#selected) {
      this.#selected = index;
      this.#drawCursor();
    }
  }

  #draw(): void {
    if (this.#width === 0) {
      return;
    }
    const points = this.#points;
    const first = points[0]?.version ?? 0;
    const last = points.at(-1)?.version ?? 1;
    this.#x = linear({
      from: first,
      to: Math.max(last, first + 1),
      start: MARGIN.left,
      end: this.#width - MARGIN.right,
    });
    const range = extent(
      points.map((point) => point.loss),
      0.08,
    );
    this.#y = linear({ from: range.from, to: range.to, start: this.#height - MARGIN.bottom, end: MARGIN.top });
    const svg = makeSvg("svg", {
      width: this.#width,
      height: this.#height,
      viewBox: `0 0 ${this.#width} ${this.#height}`,
      "aria-hidden": "true",
    });
    svg.append(...this.#axes(range, first, last));
    if (points.length > 0) {
      const path = points.map(
        (p, i) => `${i === 0 ? "M" : "L"}${this.#x.at(p.version).toFixed(1)} ${this.#y.at(p.loss).toFixed(1)}`,
      );
      const floor = this.#height - MARGIN.bottom;
      const area = `${path.join("")}V${floor}H${this.#x.at(first).toFixed(1)}Z`;
      const line = path.join("");
      const clip = makeSvg("clipPath", { id: CLIP });
      clip.append(makeSvg("rect", { class: "chart-past", x: 0, y: 0, width: this.#width, height: this.#height }));
      const past = makeSvg("g", { "clip-path": `url(#${CLIP})` });
      past.append(makeSvg("path", { class: "chart-area", d: area }), makeSvg("path", { class: "chart-line", d: line }));
      svg.append(clip, makeSvg("path", { class: "chart-later", d: line }), past);
    } else {
      const words = "The curve is drawn when the relay has answered.";
      svg.append(
        makeSvg(
          "text",
          { class: "chart-empty", x: this.#width / 2, y: this.#height / 2 - 10, "text-anchor": "middle" },
          words,
        ),
      );
    }
    svg.append(makeSvg("g", { class: "chart-cursor" }));
    this.#figure.replaceChildren(svg);
    this.#drawCursor();
  }

  #axes(range: { from: number; to: number }, first: number, last: number): SVGElement[] {
    const right = this.#width - MARGIN.right;
    const floor = this.#height - MARGIN.bottom;
    const parts: SVGElement[] = [];
    const shown = this.#points.length > 0;
    for (const loss of shown ? ticks(range.from, range.to, 4) : []) {
      const y = this.#y.at(loss).toFixed(1);
      parts.push(makeSvg("line", { class: "chart-grid", x1: MARGIN.left, x2: right, y1: y, y2: y }));
      parts.push(
        makeSvg(
          "text",
          { class: "chart-tick", x: MARGIN.left - 8, y, dy: "0.32em", "text-anchor": "end" },
          String(loss),
        ),
      );
    }
    if (shown) {
      const names = [
        makeSvg("text", { class: "chart-tick", x: 0, y: 14 }, this.#unit === "" ? "Loss" : `Loss, ${this.#unit}`),
        makeSvg("text", { class: "chart-tick", x: right, y: this.#height - 4, "text-anchor": "end" }, "Version"),
      ];
      parts.push(...names);
    }
    parts.push(makeSvg("line", { class: "chart-axis", x1: MARGIN.left, x2: right, y1: floor, y2: floor }));
    for (const version of shown ? ticks(first, Math.max(last, first + 1), this.#width < 480 ? 4 : 8, true) : []) {
      const x = this.#x.at(version).toFixed(1);
      parts.push(
        makeSvg("text", { class: "chart-tick", x, y: floor + 18, "text-anchor": "middle" }, formatCount(version)),
      );
    }
    return parts;
  }

  #drawCursor(): void {
    const last = this.#points.length - 1;
    const marked = this.#mark === null ? last : (this.#nearest(this.#mark) ?? last);
    const shown = this.#selected ?? marked;
    const chosen = this.#points[shown];
    const sentence = describePoint(chosen, shown === last);
    setText(this.#readout, sentence);
    this.#figure.setAttribute("aria-valuemin", String(this.#points[0]?.version ?? 0));
    this.#figure.setAttribute("aria-valuemax", String(this.#points[last]?.version ?? 0));
    this.#figure.setAttribute("aria-valuenow", String(chosen?.version ?? 0));
    this.#figure.setAttribute("aria-valuetext", sentence);
    const end = this.#mark === null ? this.#width : this.#x.at(this.#points[marked]?.version ?? 0);
    this.#figure.querySelector(".chart-past")?.setAttribute("width", end.toFixed(1));
    const cursor = this.#figure.querySelector(".chart-cursor");
    if (cursor === null || chosen === undefined) {
      return;
    }
    const x = this.#x.at(chosen.version).toFixed(1);
    const y = this.#y.at(chosen.loss).toFixed(1);
    const line = makeSvg("line", { x1: x, x2: x, y1: MARGIN.top, y2: this.#height - MARGIN.bottom });
    cursor.replaceChildren(
      ...(this.#selected === null && this.#mark === null ? [] : [line]),
      makeSvg("circle", { cx: x, cy: y, r: 4.5 }),
    );
  }
}

function describePoint(point: ChartPoint | undefined, latest: boolean): string {
  if (point === undefined) {
    return "No version is known yet.";
  }
  const name = `Version ${formatCount(point.version)}${latest ? ", the newest" : ""}`;
  const by =
    point.version === 0 ? "untrained" : `made by ${formatPlural(point.contributors, "contributor", "contributors")}`;
  return `${name}: loss ${formatLoss(point.loss)}, ${by}.`;
}

/** At most `max` points, evenly spaced, the first and the last always among them. */
export function thin<T>(points: readonly T[], max: number): readonly T[] {
  if (points.length <= max) {
    return points;
  }
  const kept: T[] = [];
  for (let i = 0; i < max; i += 1) {
    const point = points[Math.round((i * (points.length - 1)) / (max - 1))];
    if (point !== undefined) {
      kept.push(point);
    }
  }
  return kept;
}
