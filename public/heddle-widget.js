// The Heddle widget's loader: <script src="https://RELAY/heddle-widget.js" async></script> and, where it should appear,
// <heddle-widget theme="auto" lang="en"></heddle-widget>. It shows a sandboxed frame of the relay and passes on theme, lang,
// size and pause(). It cannot start anything: only a click inside the frame can. Events: "heddle-state" on the element.
(() => {
  const relay = new URL(document.currentScript.src).origin;
  const states = ["idle", "asking", "starting", "working", "paused", "stopped", "failed"];
  const count = (n) => Number.isFinite(n) && n >= 0;
  const has = (data, ...fields) =>
    typeof data === "object" &&
    data !== null &&
    Object.keys(data).length === fields.length &&
    fields.every((field) => Object.hasOwn(data, field));
  const check = (data) => {
    if (has(data, "type", "px") && data.type === "height") {
      return count(data.px) && data.px >= 40 && data.px <= 1200 ? data : null;
    }
    if (has(data, "type", "state", "tokensPerS", "tokensTotal", "accepted") && data.type === "state") {
      const { state, tokensPerS, tokensTotal, accepted } = data;
      return states.includes(state) && [tokensPerS, tokensTotal, accepted].every(count) ? data : null;
    }
    return null;
  };
  // A sheet and not a style attribute, so that the host's own rules, and "hidden", go before it.
  const style = "display: block; min-width: 240px; max-width: 400px";
  let sheet = null;
  try {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(`:where(heddle-widget:not([hidden])) { ${style}; }`);
  } catch {
    sheet = null; // Safari before 16.4, Firefox before 101
  }
  /** Gives the element its default style in the document or shadow root that it is in; false where that cannot be done. */
  const adopt = (root) => {
    try {
      if (!root.adoptedStyleSheets.includes(sheet)) {
        root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
      }
      return true;
    } catch {
      return false; // no such list, or the root of another document
    }
  };
  class HeddleWidget extends HTMLElement {
    static observedAttributes = ["theme", "lang", "size"];
    #port = null;
    #frame = null;
    #listen = (event) => this.#greet(event);

    connectedCallback() {
      const frame = document.createElement("iframe");
      frame.title = "Lend power to train an open model (Heddle)";
      frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-popups allow-popups-to-escape-sandbox");
      frame.loading = "lazy";
      frame.referrerPolicy = "origin";
      frame.style.cssText = "display:block;width:100%;height:190px;border:0;color-scheme:normal";
      frame.src = `${relay}/widget.html`;
      this.#frame = frame;
      addEventListener("message", this.#listen);
      this.replaceChildren(frame);
      if (!(sheet && adopt(this.getRootNode())) && !this.hidden && !this.style.display) {
        this.style.cssText += style;
      }
    }

    disconnectedCallback() {
      removeEventListener("message", this.#listen);
      this.#port?.close();
      this.#port = null;
    }

    attributeChangedCallback(name) {
      this.#say(name);
    }

    /** Pauses the work. Only the person can resume it, in the frame. */
    pause() {
      this.#port?.postMessage({ type: "pause" });
    }

    #say(name) {
      const value = this.getAttribute(name);
      if (value) {
        this.#port?.postMessage({ type: name, [name]: value });
      }
    }

    #greet({ source, origin, data }) {
      if (source !== this.#frame.contentWindow || origin !== relay || !has(data, "type", "nonce", "version")) {
        return;
      }
      if (data.type !== "heddle-hello" || data.version !== 1 || !/^[0-9a-f]{32}$/.test(data.nonce)) {
        return;
      }
      const { port1, port2 } = new MessageChannel();
      this.#port?.close();
      this.#port = port1;
      port1.onmessage = (event) => this.#hear(check(event.data));
      source.postMessage({ type: "heddle-port", nonce: data.nonce }, relay, [port2]);
      HeddleWidget.observedAttributes.forEach((name) => this.#say(name));
    }

    #hear(message) {
      if (message?.type === "height") {
        this.#frame.style.height = `${message.px}px`;
      } else if (message) {
        this.dispatchEvent(new CustomEvent("heddle-state", { detail: message, bubbles: true }));
      }
    }
  }
  if (!customElements.get("heddle-widget")) {
    customElements.define("heddle-widget", HeddleWidget);
  }
})();
