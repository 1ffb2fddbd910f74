/**
 * heddle-contributions: what this device has sent and what became of it, newest first, each with its verdict in words.
 * A refusal is shown as plainly as an acceptance, with its reason.
 */
import { make } from "./dom.ts";
import { formatAgo, formatBytes, formatCount, formatLoss, formatPlural } from "./format.ts";

export interface ContributionItem {
  readonly id: string;
  readonly round: number;
  readonly sentMs: number;
  readonly wireBytes: number;
  readonly steps: number;
  readonly loss: number;
  readonly state: "waiting" | "accepted" | "refused";
  readonly sentence: string;
}

const WORDS = { waiting: "Being checked", accepted: "Accepted", refused: "Refused" } as const;
/** Rows shown before "Show all". */
const ROWS_FIRST = 6;

export class ContributionsElement extends HTMLElement {
  #items: readonly ContributionItem[] = [];
  #key = "";
  #all = false;

  connectedCallback(): void {
    this.#draw();
  }

  get items(): readonly ContributionItem[] {
    return this.#items;
  }

  /** Newest first. */
  set items(items: readonly ContributionItem[]) {
    this.#items = items;
    const minute = Math.floor(Date.now() / 60_000);
    const key = `${minute}|${items.map((item) => item.id + item.state).join()}`;
    if (key !== this.#key) {
      this.#key = key;
      this.#draw();
    }
  }

  #draw(): void {
    if (this.#items.length === 0) {
      const words =
        "Nothing yet. Each round that this device finishes appears here, with the outcome of its check and the reason.";
      this.replaceChildren(make("p", { class: "empty" }, words));
      return;
    }
    const focused = this.contains(document.activeElement);
    const shown = this.#all ? this.#items : this.#items.slice(0, ROWS_FIRST);
    this.replaceChildren(make("ol", { class: "rows", role: "list" }, ...shown.map(row)));
    if (this.#items.length > ROWS_FIRST) {
      const words = this.#all ? "Show fewer" : `Show all ${formatCount(this.#items.length)}`;
      const more = make("button", { type: "button", class: "button link" }, words);
      more.addEventListener("click", () => {
        this.#all = !this.#all;
        this.#draw();
      });
      this.append(more);
      if (focused) {
        more.focus();
      }
    }
  }
}

function row(item: ContributionItem): HTMLLIElement {
  const time = make("time", { datetime: new Date(item.sentMs).toISOString() }, formatAgo(item.sentMs, Date.now()));
  const facts = `${formatPlural(item.steps, "step", "steps")}, training loss ${formatLoss(item.loss)}, ${formatBytes(item.wireBytes)} sent, `;
  return make(
    "li",
    { class: "row", "data-state": item.state },
    make("span", { class: "row-state" }, make("span", { class: "row-mark", "aria-hidden": "true" }), WORDS[item.state]),
    make("span", { class: "row-title" }, `Round ${formatCount(item.round)}`),
    make("span", { class: "row-facts" }, facts, time),
    make("span", { class: "row-sentence" }, sentenceOf(item)),
  );
}

/** The state stands beside it already: "Accepted" is not said twice. */
function sentenceOf({ sentence }: ContributionItem): string {
  const rest = sentence.replace(/^Accepted: /, "");
  return `${rest.charAt(0).toUpperCase()}${rest.slice(1)}`;
}
