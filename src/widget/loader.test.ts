import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { WIDGET_STATES, checkFrameMessage, checkHostMessage, makeNonce } from "./protocol.ts";

/** Runs public/heddle-widget.js against a stand-in for the browser and returns what a test needs to play the frame. */
function load({ sheets = true, hidden = false } = {}) {
  const source = readFileSync(new URL("../../public/heddle-widget.js", import.meta.url), "utf8");
  const relay = "https://relay.example";
  const listeners: ((event: unknown) => void)[] = [];
  const posted: { data: unknown; origin: string; ports: unknown[] }[] = [];
  const said: unknown[] = [];
  const port = {
    postMessage: (data: unknown) => said.push(data),
    close: () => undefined,
    onmessage: (_event: unknown): void => undefined,
  };
  const contentWindow = {
    postMessage: (data: unknown, origin: string, ports: unknown[]) => posted.push({ data, origin, ports }),
  };
  const frame = { style: { cssText: "", height: "" }, setAttribute: () => undefined, contentWindow, src: "" };
  const events: unknown[] = [];
  const root: { adoptedStyleSheets?: object[] } = sheets ? { adoptedStyleSheets: [] } : {};
  class Element {
    style = { cssText: "", display: "" };
    hidden = hidden;
    getRootNode() {
      return root;
    }
    attributes = new Map<string, string>();
    replaceChildren() {}
    getAttribute(name: string) {
      return this.attributes.get(name) ?? null;
    }
    dispatchEvent(event: { detail: unknown }) {
      events.push(event.detail);
    }
  }
  let Widget:
    | (new () => Element & { connectedCallback(): void; pause(): void; attributeChangedCallback(name: string): void })
    | undefined;
  const names = [
    "document",
    "HTMLElement",
    "customElements",
    "addEventListener",
    "removeEventListener",
    "MessageChannel",
    "CustomEvent",
    "CSSStyleSheet",
  ];
  const values = [
    { currentScript: { src: `${relay}/heddle-widget.js` }, createElement: () => frame },
    Element,
    { get: () => undefined, define: (_: string, found: typeof Widget) => (Widget = found) },
    (_: string, listener: (event: unknown) => void) => listeners.push(listener),
    () => undefined,
    class {
      port1 = port;
      port2 = {};
    },
    class {
      detail: unknown;
      constructor(_: string, { detail }: { detail: unknown }) {
        this.detail = detail;
      }
    },
    class {
      constructor() {
        if (!sheets) {
          throw new TypeError("Illegal constructor");
        }
      }
      replaceSync() {}
    },
  ];
  // eslint-disable-next-line no-new-func -- the loader is a classic script; this is how it runs on a page
  new Function(...names, source)(...values);
  const widget = new (Widget as NonNullable<typeof Widget>)();
  widget.connectedCallback();
  const greet = (event: object) => listeners[0]?.({ source: contentWindow, origin: relay, ...event });
  return { widget, root, frame, relay, greet, posted, said, port, events };
}

const hello = () => ({ type: "heddle-hello", nonce: makeNonce(), version: 1 });

describe("heddle-widget.js", () => {
  test("gives its style once to the document or shadow root that it is in, and to itself where sheets cannot be made", () => {
    const { widget, root } = load();
    widget.connectedCallback();
    expect(root.adoptedStyleSheets).toHaveLength(1);
    expect(widget.style.cssText).toBe("");
    expect(load({ sheets: false }).widget.style.cssText).toContain("display: block");
    expect(load({ sheets: false, hidden: true }).widget.style.cssText).toBe("");
  });

  test("answers the frame's hello with a port, on the relay's origin only", () => {
    const { greet, posted, relay } = load();
    const data = hello();
    greet({ data });
    expect(posted).toEqual([{ data: { type: "heddle-port", nonce: data.nonce }, origin: relay, ports: [{}] }]);
  });

  test("ignores hellos of other windows, other origins, other versions and other forms", () => {
    const { greet, posted } = load();
    greet({ data: hello(), origin: "https://evil.example" });
    greet({ data: hello(), source: {} });
    greet({ data: { ...hello(), version: 2 } });
    greet({ data: { ...hello(), nonce: "x" } });
    greet({ data: { ...hello(), more: 1 } });
    greet({ data: null });
    expect(posted).toEqual([]);
  });

  test("says only what the frame accepts, and has no way to start", () => {
    const { widget, greet, said } = load();
    widget.attributes.set("theme", "dark").set("lang", "de").set("size", "compact");
    greet({ data: hello() });
    widget.pause();
    expect(said.map((message) => checkHostMessage(message)?.type)).toEqual(["theme", "lang", "size", "pause"]);
    expect(Object.getOwnPropertyNames(Object.getPrototypeOf(widget)).sort()).toEqual(
      ["attributeChangedCallback", "connectedCallback", "constructor", "disconnectedCallback", "pause"].sort(),
    );
  });

  test("accepts from the frame exactly what protocol.ts accepts", () => {
    const { greet, port, frame, events } = load();
    greet({ data: hello() });
    const number = fc.oneof(fc.double({ noDefaultInfinity: false }), fc.integer(), fc.string());
    const message = fc.oneof(
      fc.anything(),
      fc.record({ type: fc.constant("height"), px: number }),
      fc.record({
        type: fc.constant("state"),
        state: fc.constantFrom(...WIDGET_STATES, "other"),
        tokensPerS: number,
        tokensTotal: number,
        accepted: number,
      }),
    );
    fc.assert(
      fc.property(message, (data) => {
        frame.style.height = "";
        events.length = 0;
        port.onmessage({ data });
        const expected = checkFrameMessage(data);
        expect(frame.style.height).toBe(expected?.type === "height" ? `${expected.px}px` : "");
        expect(events).toEqual(expected?.type === "state" ? [data] : []);
      }),
      { numRuns: 2_000 },
    );
  });
});
