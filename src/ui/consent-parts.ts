/**
 * What a person is asked to agree to, as headings and sentences: what is used, what is sent, who sees it, how to stop, in
 * that order, because that is what people ask. The page's dialog (`consent.ts`) and the widget show the same text; a change
 * in substance raises AGREEMENT_TEXT_VERSION. Pure.
 */
import { formatBytes } from "./format.ts";

export interface ConsentTerms {
  /** Name and purpose of the run, from its charter. */
  readonly name: string;
  readonly purpose: string;
  /** Downloaded once at the start: the shared base and its training text. */
  readonly downloadBytes: number;
  /** What one device sends and receives in a round, and how long that is, from the run's record; null before there is one. */
  readonly round: { readonly upBytes: number; readonly downBytes: number; readonly ms: number } | null;
  /** Memory that training takes, estimated. */
  readonly memoryBytes: number;
  readonly lasts: "30 days" | "24 hours";
  /** Share of the time that the device works at first. */
  readonly duty: number;
}

/** The terms as pairs of heading and sentence; the widget shows the same ones. */
export function consentParts(terms: ConsentTerms): readonly (readonly [string, string])[] {
  // The widget has no slider, and exchanges nothing with other contributors.
  const changeable = terms.lasts === "30 days" ? " at first; you can change that at any time" : "";
  const end = terms.lasts === "30 days" ? "take it back" : "press Stop";
  const unless = terms.lasts === "30 days" ? ", unless you tick “Share the model with other volunteers directly”" : "";
  return [
    [
      "What is used",
      `The graphics processor (GPU), or the processor where that suits better, about ${Math.round(terms.duty * 100)}\u00a0% of ` +
        `the time${changeable}. At least ${about(terms.memoryBytes)} of memory. It costs electricity: the device gets ` +
        "warmer, a fan may run, and a battery drains faster.",
    ],
    [
      "What goes over the network",
      `About ${about(terms.downloadBytes)} down at the start.${roundSentence(terms.round)}`,
    ],
    [
      "What is sent",
      "Updates to the model, computed from public text, and checks of other people’s updates. Never your files, your " +
        "browsing or anything you type.",
    ],
    [
      "Who sees what",
      `The relay sees your IP address, as every website does; other contributors do not${unless}. ` +
        "A random key made on this device signs what you send and stands for you in the run’s record. There is no account and no name.",
    ],
    [
      "What is kept here",
      "The key, the model, its training text and the list of your contributions, in this browser’s storage for this site. " +
        "Clearing the site’s data removes them.",
    ],
    ["How to stop", "Press Pause or Stop at any time, or close the tab. Nothing runs when the page is closed."],
    [
      "How long",
      `This answer is kept for ${terms.lasts} on this device, or until you ${end}; then you are asked again.`,
    ],
  ];
}

function roundSentence(round: ConsentTerms["round"]): string {
  if (round === null) {
    return " How much each round takes is not known yet; the page shows it while it works.";
  }
  const { upBytes, downBytes, ms } = round;
  const hourBytes = ((upBytes + downBytes) * 3_600_000) / ms;
  return ` Then, in each round, about ${about(upBytes)} up and ${about(downBytes)} down: ${about(hourBytes)} an hour.`;
}

/** Two digits: these are estimates. */
function about(bytes: number): string {
  return formatBytes(Number(bytes.toPrecision(2)));
}
