/**
 * heddle-consent: the dialog that asks before anything computes. Plain text, no pre-ticked boxes, two buttons of equal
 * reach; Escape and closing mean no. It says what is used, what is sent and how to stop, in that order, because that is
 * what people ask. `agreement.ts` remembers the answer.
 */
import { make } from "./dom.ts";
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

export class ConsentElement extends HTMLElement {
  #dialog: HTMLDialogElement | null = null;

  /** Shows the dialog; resolves to true when the person agrees, to false for every other way of closing it. */
  ask(terms: ConsentTerms): Promise<boolean> {
    this.#dialog?.remove();
    const dialog = make("dialog", { class: "consent", "aria-labelledby": "consent-title" });
    const no = make("button", { type: "button", class: "button quiet" }, "No, thank you");
    const yes = make("button", { type: "button", class: "button main" }, "Agree and start");
    dialog.append(
      make("h2", { id: "consent-title", tabindex: -1, autofocus: true }, "Lend this device’s power?"),
      make("p", { class: "consent-lead" }, `It will take part in “${terms.name}”. ${terms.purpose}`),
      make("dl", {}, ...consentParts(terms).flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)])),
      make("div", { class: "consent-actions" }, no, yes),
    );
    this.append(dialog);
    this.#dialog = dialog;
    return new Promise((resolve) => {
      let agreed = false;
      yes.addEventListener("click", () => {
        agreed = true;
        dialog.close();
      });
      no.addEventListener("click", () => dialog.close());
      dialog.addEventListener("close", () => {
        dialog.remove();
        this.#dialog = null;
        resolve(agreed);
      });
      dialog.showModal();
    });
  }
}

/** The terms as pairs of heading and sentence; the widget shows the same ones. */
export function consentParts(terms: ConsentTerms): readonly (readonly [string, string])[] {
  const round = terms.roundBytes === null ? "" : `, then about ${formatBytes(terms.roundBytes)} for each round`;
  return [
    [
      "What is used",
      `Your graphics processor, or the processor where there is no suitable one, ${Math.round(terms.duty * 100)} % of the ` +
        `time at first; you can change that. About ${formatBytes(terms.memoryBytes)} of memory. Electricity: the device ` +
        "gets warmer and a battery drains faster.",
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
