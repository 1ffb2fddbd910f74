/**
 * heddle-threads: the run as a cloth on a loom. Every contributor connected now is a thread that comes in from the left and
 * passes an eye of the heddle; every version of the shared base is one crosswise thread of the cloth on the right, the newest
 * next to the heddle. This device's thread is the red one, drawn as far as its present round has come, and the versions that
 * carry its work are red too. The picture is data, not decoration: it changes only when the run does (at most a second of
 * movement, none with prefers-reduced-motion), so there is nothing to pause.
 */
import { make } from "./dom.ts";
import { formatPlural } from "./format.ts";

export interface Cloth {
  /** Versions of the shared base so far, the start not counted. */
  readonly versions: number;
  /** Contributors connected now. */
  readonly connected: number;
  /** Versions that carry accepted work of this device. */
  readonly mine: ReadonlySet<number>;
  /** How far this device's present round has come, 0 … 1; null when it is not taking part. */
  readonly progress: number | null;
}

const PITCH = 11;
const THICK = 6.5;
const BEAT_MS = 900;
const INKS = {
  ground: "--ground",
  bare: "--thread",
  weft: "--weft",
  others: "--woad",
  mine: "--madder",
  fresh: "--weld",
  wood: "--wood",
};
type Inks = Record<keyof typeof INKS, string>;

export class ThreadsElement extends HTMLElement {
  #cloth: Cloth = { versions: 0, connected: 0, mine: new Set(), progress: null };
  #canvas = make("canvas", { "aria-hidden": "true" });
  #probe = make("span", { hidden: true });
  #observer: ResizeObserver | null = null;
  #scheme = matchMedia("(prefers-color-scheme: dark)");
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #redraw = (): void => this.#draw();
  #beatStartMs = Number.NEGATIVE_INFINITY;
  #frame = 0;

  connectedCallback(): void {
    if (this.#observer !== null) {
      return;
    }
    this.replaceChildren(this.#canvas, this.#probe);
    this.setAttribute("role", "img");
    this.#observer = new ResizeObserver(this.#redraw);
    this.#observer.observe(this);
    this.#scheme.addEventListener("change", this.#redraw);
    this.#describe();
  }

  disconnectedCallback(): void {
    this.#observer?.disconnect();
    this.#observer = null;
    this.#scheme.removeEventListener("change", this.#redraw);
    cancelAnimationFrame(this.#frame);
  }

  get cloth(): Cloth {
    return this.#cloth;
  }

  set cloth(cloth: Cloth) {
    const before = this.#cloth;
    const grew = before.versions > 0 && cloth.versions > before.versions;
    this.#cloth = cloth;
    if (keyOf(before) === keyOf(cloth)) {
      return;
    }
    if (grew && !this.#still.matches && document.visibilityState === "visible") {
      this.#beatStartMs = performance.now();
    }
    this.#describe();
    this.#draw();
  }

  #describe(): void {
    const { connected, versions, mine } = this.#cloth;
    const own =
      mine.size > 0 ? ` ${formatPlural(mine.size, "version carries", "versions carry")} work of this device.` : "";
    this.setAttribute(
      "aria-label",
      `A loom: ${formatPlural(connected, "thread", "threads")} for the contributors connected now, and a cloth of ` +
        `${formatPlural(versions, "version", "versions")} of the shared base.${own}`,
    );
  }

  #draw(): void {
    cancelAnimationFrame(this.#frame);
    const width = this.clientWidth;
    const height = this.clientHeight;
    if (width === 0 || height === 0) {
      return;
    }
    const ratio = Math.min(2, devicePixelRatio);
    if (this.#canvas.width !== Math.round(width * ratio) || this.#canvas.height !== Math.round(height * ratio)) {
      this.#canvas.width = Math.round(width * ratio);
      this.#canvas.height = Math.round(height * ratio);
    }
    const context = this.#canvas.getContext("2d");
    if (context === null) {
      return; // Without a canvas the label above still tells the same.
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const passed = (performance.now() - this.#beatStartMs) / BEAT_MS;
    const beat = passed >= 1 ? 1 : 1 - (1 - passed) ** 3;
    drawLoom(context, { width, height, cloth: this.#cloth, beat, inks: this.#inks() });
    if (passed < 1) {
      this.#frame = requestAnimationFrame(this.#redraw);
    }
  }

  /** Custom properties hold light-dark(); only a used colour can be given to a canvas. */
  #inks(): Inks {
    const inks = {} as Inks;
    for (const [name, property] of Object.entries(INKS) as [keyof Inks, string][]) {
      this.#probe.style.color = `var(${property})`;
      inks[name] = getComputedStyle(this.#probe).color;
    }
    return inks;
  }
}

/** What the picture shows: two cloths with the same key look the same. */
function keyOf({ versions, connected, mine, progress }: Cloth): string {
  return `${versions} ${connected} ${mine.size} ${progress === null ? "" : Math.round(progress * 400)}`;
}

interface Scene {
  readonly width: number;
  readonly height: number;
  readonly cloth: Cloth;
  /** 0 … 1: how far the newest version has been beaten into the cloth. */
  readonly beat: number;
  readonly inks: Inks;
}

function drawLoom(context: CanvasRenderingContext2D, scene: Scene): void {
  const { width, height, cloth, beat, inks } = scene;
  const lanes = Math.max(3, Math.floor((height - 20) / PITCH));
  const top = (height - (lanes - 1) * PITCH) / 2;
  const heddleX = Math.round(width * 0.36);
  const fellX = heddleX + Math.max(44, Math.min(96, width * 0.13));
  const owners = laneOwners(lanes, cloth.connected, cloth.progress !== null);
  const wefts = Math.min(cloth.versions, Math.ceil((width - fellX) / PITCH) + 1);
  const clothEnd = Math.min(width, fellX + wefts * PITCH);
  for (let lane = 0; lane < lanes; lane += 1) {
    const y = top + lane * PITCH;
    const owner = owners.get(lane);
    const ink = owner === "mine" ? inks.mine : owner === "other" ? inks.others : inks.bare;
    // The two sheds change places while a version is beaten in.
    const side = (lane + cloth.versions) % 2 === 0 ? 1 : -1;
    const lift = side * 9 * (1 - 2 * (1 - beat));
    const eye = { x: heddleX + (lane % 2 === 0 ? -8 : 8), y: y + lift };
    const bundle = height / 2 + (y - height / 2) * 0.72;
    const path = (context2: CanvasRenderingContext2D): void => {
      context2.moveTo(-4, bundle);
      context2.bezierCurveTo(heddleX * 0.45, bundle, heddleX * 0.6, eye.y, eye.x, eye.y);
    };
    if (owner === "mine" && cloth.progress !== null) {
      stroke(context, { ink, thick: 2.5, alpha: 0.28 }, path);
      context.save();
      context.beginPath();
      context.rect(0, 0, eye.x * Math.min(1, Math.max(0, cloth.progress)), height);
      context.clip();
      stroke(context, { ink, thick: 4.5, alpha: 1 }, path);
      context.restore();
    } else {
      stroke(context, { ink, thick: owner === "other" ? 2.5 : 1, alpha: owner === "other" ? 0.9 : 0.55 }, path);
    }
    stroke(context, { ink, thick: owner === undefined ? 1.2 : 2.5, alpha: owner === undefined ? 0.7 : 1 }, (c) => {
      c.moveTo(eye.x, eye.y);
      c.lineTo(fellX, y);
    });
    drawEye(context, eye, owner === undefined ? inks.wood : ink, inks.ground);
    stroke(context, { ink, thick: owner === undefined ? 1 : 2, alpha: 0.45 }, (c) => {
      c.moveTo(clothEnd, y);
      c.lineTo(width, y);
    });
    stroke(context, { ink, thick: THICK, alpha: 1 }, (c) => {
      c.moveTo(fellX, y);
      c.lineTo(clothEnd, y);
    });
  }
  drawShafts(context, { heddleX, top, lanes, inks });
  for (let j = 0; j < wefts; j += 1) {
    drawWeft(context, scene, { lanes, top, owners, version: cloth.versions - j, x: fellX + (j + beat - 0.5) * PITCH });
  }
}

/** One version: crosswise over every second lane, under the others. */
function drawWeft(
  context: CanvasRenderingContext2D,
  { cloth, inks, height }: Scene,
  weft: { lanes: number; top: number; owners: ReadonlyMap<number, "mine" | "other">; version: number; x: number },
): void {
  const { lanes, top, owners, version, x } = weft;
  const ink = cloth.mine.has(version) ? inks.mine : version === cloth.versions ? inks.fresh : inks.weft;
  const from = Math.max(0, top - PITCH * 0.6);
  const to = Math.min(height, top + (lanes - 0.4) * PITCH);
  stroke(context, { ink: inks.ground, thick: THICK + 2.6, alpha: 1 }, (c) => {
    c.moveTo(x, from);
    c.lineTo(x, to);
  });
  stroke(context, { ink, thick: THICK, alpha: 1 }, (c) => {
    c.moveTo(x, from);
    c.lineTo(x, to);
  });
  for (let lane = version % 2; lane < lanes; lane += 2) {
    const y = top + lane * PITCH;
    const owner = owners.get(lane);
    const over = owner === "mine" ? inks.mine : owner === "other" ? inks.others : inks.bare;
    for (const [strokeInk, thick] of [
      [inks.ground, THICK + 2.6],
      [over, THICK],
    ] as const) {
      stroke(context, { ink: strokeInk, thick, alpha: 1 }, (c) => {
        c.moveTo(x - PITCH * 0.5, y);
        c.lineTo(x + PITCH * 0.5, y);
      });
    }
  }
}

function drawShafts(
  context: CanvasRenderingContext2D,
  { heddleX, top, lanes, inks }: { heddleX: number; top: number; lanes: number; inks: Inks },
): void {
  for (const x of [heddleX - 8, heddleX + 8]) {
    stroke(context, { ink: inks.wood, thick: 1, alpha: 0.7 }, (c) => {
      c.moveTo(x, Math.max(2, top - 16));
      c.lineTo(x, top + (lanes - 1) * PITCH + 16);
    });
  }
}

function drawEye(context: CanvasRenderingContext2D, eye: { x: number; y: number }, ink: string, ground: string): void {
  context.beginPath();
  context.ellipse(eye.x, eye.y, 2.4, 4.2, 0, 0, 2 * Math.PI);
  context.fillStyle = ground;
  context.fill();
  context.lineWidth = 1.4;
  context.strokeStyle = ink;
  context.stroke();
}

function stroke(
  context: CanvasRenderingContext2D,
  { ink, thick, alpha }: { ink: string; thick: number; alpha: number },
  path: (context: CanvasRenderingContext2D) => void,
): void {
  context.beginPath();
  path(context);
  context.globalAlpha = alpha;
  context.strokeStyle = ink;
  context.lineWidth = thick;
  context.stroke();
  context.globalAlpha = 1;
}

/**
 * Which lanes belong to contributors: this device in the middle, the others spread over the lanes in a fixed, scattered
 * order, so that a newcomer moves nobody. At most one contributor a lane; a run with more shows a full loom.
 */
export function laneOwners(lanes: number, connected: number, taking: boolean): ReadonlyMap<number, "mine" | "other"> {
  const owners = new Map<number, "mine" | "other">();
  const middle = Math.floor(lanes / 2);
  if (taking) {
    owners.set(middle, "mine");
  }
  const others = Math.min(lanes - 1, Math.max(0, connected - (taking ? 1 : 0)));
  for (let i = 1; owners.size < others + (taking ? 1 : 0) && i < lanes * 8; i += 1) {
    const lane = Math.floor(((i * 0.618_033_988_75) % 1) * lanes);
    if (lane !== middle && !owners.has(lane)) {
      owners.set(lane, "other");
    }
  }
  return owners;
}
