/** Facts as a list of names and values, drawn again only where they changed. */
import { make } from "./dom.ts";
import type { Fact } from "./facts.ts";

export function fillFacts(list: HTMLElement, facts: readonly Fact[]): void {
  const key = JSON.stringify(facts);
  if (list.dataset["key"] !== key) {
    list.dataset["key"] = key;
    list.replaceChildren(
      ...facts.map(({ name, value, note = "" }) =>
        make("div", {}, make("dt", {}, name), make("dd", {}, value, ...(note === "" ? [] : [make("small", {}, note)]))),
      ),
    );
  }
}
