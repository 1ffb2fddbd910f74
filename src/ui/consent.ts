/**
 * heddle-consent: the dialog that asks before anything computes. Plain text, no pre-ticked boxes, two buttons of equal
 * reach; Escape and closing mean no. It says what is used, what is sent and how to stop, in that order, because that is
 * what people ask. `agreement.ts` remembers the answer.
 */
import { consentParts, type ConsentTerms } from "./consent-parts.ts";
import { make } from "./dom.ts";

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
