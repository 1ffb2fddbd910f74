/**
 * Making DOM nodes without strings of HTML, so that nothing that comes over the network is ever parsed as markup and the
 * pages run under a strict content security policy (`relay/http.ts`).
 */

type Child = Node | string;

/** Creates `tag` with attributes (false and null are left out, true is an empty attribute) and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | number | boolean | null>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

/** The same for SVG. */
export function makeSvg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | number | boolean | null>> = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[K] {
  const element: SVGElement = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element as SVGElementTagNameMap[K];
}

/** Writes text only where it differs, so that a live region is not announced again and layout is not disturbed. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** Finds the one element of this id and type; throws when the page's markup lacks it. */
export function byId<E extends Element = HTMLElement>(id: string, root: Document = document): E {
  const element = root.getElementById(id);
  if (element === null) {
    throw new Error(`Cannot set up the page: no element has the id "${id}"`);
  }
  return element as Element as E;
}

/** Finds the one element of this tag; throws when the page's markup lacks it. */
export function byTag<K extends keyof HTMLElementTagNameMap>(name: K): HTMLElementTagNameMap[K] {
  const element = document.querySelector(name);
  if (element === null) {
    throw new Error(`Cannot set up the page: it has no <${name}>`);
  }
  return element;
}

function setAttributes(element: Element, attributes: Readonly<Record<string, string | number | boolean | null>>): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}
