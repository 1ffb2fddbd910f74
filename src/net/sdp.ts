/**
 * The little of SDP (RFC 8866, RFC 8839) that the rtc lane changes. The dialling end's candidates are taken out and ignored: the
 * answering end learns its address from its first packet (peer-reflexive), which avoids the second of delay that both ends
 * probing at once costs in a quarter of all dials. The answering end listens on one known UDP port, so its candidates are
 * written, not gathered. Between two ends that are nobody's server both gather theirs, and both are used.
 */
import { HeddleError } from "../base/assert.ts";
import { CANDIDATES_MAX, SDP_CHARS_MAX } from "../protocol/limits.ts";

/** Throws HeddleError "bad-input" for what cannot be a description of a data channel. */
export function checkSdp(sdp: string, whose: string): void {
  if (sdp.length > SDP_CHARS_MAX || !sdp.startsWith("v=0") || !/^m=application /m.test(sdp)) {
    throw new HeddleError("bad-input", `Cannot use the ${whose}: it does not describe a data channel`);
  }
}

export function withoutCandidates(sdp: string): string {
  return lines(sdp)
    .filter((line) => !/^a=(candidate:|end-of-candidates)/.test(line))
    .map((line) => `${line}\r\n`)
    .join("");
}

/** Leaves out all candidates but the first CANDIDATES_MAX: each is an address that this device would send packets to. */
export function withFewCandidates(sdp: string): string {
  let candidates = 0;
  return lines(sdp)
    .filter((line) => {
      candidates += line.startsWith("a=candidate:") ? 1 : 0;
      return !line.startsWith("a=candidate:") || candidates <= CANDIDATES_MAX;
    })
    .map((line) => `${line}\r\n`)
    .join("");
}

/** Replaces the candidates by one per address, the first preferred; all listen on the same UDP port. */
export function withHostCandidates(sdp: string, addresses: readonly string[], port: number): string {
  const candidates = addresses.map((address, i) => {
    const priority = 126 * 2 ** 24 + (65_535 - i) * 2 ** 8 + 255; // RFC 8445, 5.1.2.1: host, component 1
    return `a=candidate:${i + 1} 1 UDP ${priority} ${address} ${port} typ host\r\n`;
  });
  return `${withoutCandidates(sdp)}${candidates.join("")}a=end-of-candidates\r\n`;
}

function lines(sdp: string): string[] {
  return sdp.split(/\r?\n/).filter((line) => line !== "");
}
