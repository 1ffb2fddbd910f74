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
  /** Sent for one round, from the run's record; null before there is one. */
  readonly roundBytes: number | null;
  /** Memory that training takes, estimated. */
  readonly memoryBytes: number;
  readonly lasts: "30 days" | "24 hours";
  /** Share of the time that the device works at first. */
  readonly duty: number;
}

/** The terms as pairs of heading and sentence; the widget shows the same ones. */
export function consentParts(terms: ConsentTerms): readonly (readonly [string, string])[] {
  const round = terms.roundBytes === null ? "" : `, then about ${formatBytes(terms.roundBytes)} for each round`;
  // The widget has no slider.
  const changeable = terms.lasts === "30 days" ? " at first; you can change that" : "";
  return [
    [
      "What is used",
      `Your graphics processor, or the processor where there is no suitable one, ${Math.round(terms.duty * 100)} % of the ` +
        `time${changeable}. About ${formatBytes(terms.memoryBytes)} of memory. Electricity: the device gets warmer and a ` +
        "battery drains faster.",
    ],
    ["What is downloaded", `About ${formatBytes(terms.downloadBytes)} at the start${round}.`],
    [
      "What is sent",
      "Updates to the model, computed from public text, and checks of other people’s updates. Never your files, your " +
        "browsing or anything you type.",
    ],
    [
      "Who sees what",
      "The relay sees your IP address, as every website does. A random key made on this device signs your updates; there " +
        "is no account and no name.",
    ],
    ["How to stop", "Press Pause or Stop at any time, or close the tab. Nothing runs when the page is closed."],
    ["How long", `This answer is kept for ${terms.lasts} on this device, then you are asked again.`],
  ];
}
