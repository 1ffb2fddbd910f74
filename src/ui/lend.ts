/** The page's side of a WebRTC link that the worker borrows: it is dialled here and served over the worker's port. */
import { serveRtcDial } from "../net/proxy.ts";
import { dialRtc } from "../net/rtc-browser.ts";
import type { LendRtc } from "./surface.ts";

export const lendRtc: LendRtc = (port) => serveRtcDial(port, dialRtc);
