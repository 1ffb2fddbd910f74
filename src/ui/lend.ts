/** The page's side of a WebRTC link that the worker borrows: it is dialled or answered here and served over the worker's port. */
import { serveRtc } from "../net/proxy.ts";
import { answerRtc, dialRtc } from "../net/rtc-browser.ts";
import type { LendRtc } from "./surface.ts";

export const lendRtc: LendRtc = (port) => serveRtc(port, { dial: dialRtc, answer: answerRtc });
