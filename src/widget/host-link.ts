/**
 * The frame's end of the conversation with the page that embeds it: one hello, one port, and from then on only checked
 * messages at a limited rate. Without an embedder (opened as a page of its own) it stays silent.
 */
import {
  HEIGHT_MAX,
  HEIGHT_MIN,
  WIDGET_PROTOCOL,
  checkAnswer,
  checkHostMessage,
  createThrottle,
  makeNonce,
  type FrameMessage,
  type Hello,
  type HostMessage,
} from "./protocol.ts";

export interface HostLink {
  say(message: FrameMessage): void;
}

/** Greets the embedder and hands its messages, checked, to `hear`. What is said before the answer arrives is kept. */
export function openHostLink(hear: (message: HostMessage) => void): HostLink {
  let port: MessagePort | null = null;
  const waiting = new Map<string, FrameMessage>();
  const say = (message: FrameMessage): void => {
    if (port === null) {
      waiting.set(message.type, message);
    } else {
      port.postMessage(message);
    }
  };
  if (window.parent === window) {
    return { say };
  }
  const nonce = makeNonce();
  const host = embedderOrigin();
  const allow = createThrottle();
  const answered = (event: MessageEvent): void => {
    const [given] = event.ports;
    if (
      event.source !== window.parent ||
      (host !== null && event.origin !== host) ||
      event.ports.length !== 1 ||
      given === undefined ||
      checkAnswer(event.data, nonce) === null
    ) {
      return;
    }
    removeEventListener("message", answered);
    port = given;
    port.onmessage = ({ data }: MessageEvent<unknown>) => {
      const message = allow(Date.now()) ? checkHostMessage(data) : null;
      if (message !== null) {
        hear(message);
      }
    };
    for (const message of waiting.values()) {
      port.postMessage(message);
    }
    waiting.clear();
  };
  addEventListener("message", answered);
  const hello: Hello = { type: "heddle-hello", nonce, version: WIDGET_PROTOCOL };
  // Only a browser that hides both its ancestors and its referrer gets the hello without an address; it holds no secret,
  // and the answer is tied to the parent window and the nonce.
  window.parent.postMessage(hello, host ?? "*");
  return { say };
}

/** Tells the host the frame's height whenever it changes. */
export function reportHeight(link: HostLink, element: HTMLElement): void {
  new ResizeObserver(() => {
    link.say({
      type: "height",
      px: Math.min(HEIGHT_MAX, Math.max(HEIGHT_MIN, Math.ceil(element.getBoundingClientRect().height))),
    });
  }).observe(element);
}

function embedderOrigin(): string | null {
  const ancestor = location.ancestorOrigins?.[0];
  if (ancestor !== undefined && ancestor !== "null") {
    return ancestor;
  }
  return document.referrer === "" ? null : new URL(document.referrer).origin;
}
