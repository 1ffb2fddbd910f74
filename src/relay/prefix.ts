/**
 * Whose network a connection comes from: the first 24 bits of an IPv4 address, the first 56 of an IPv6 one, which is what a household or
 * an office gets. Behind a proxy all connections come from the proxy, and a header that it sets says where they really do.
 */
import type { IncomingMessage } from "node:http";
import { isIP, isIPv4 } from "node:net";

/** Of a header; longer ones are nobody's address. */
const HEADER_CHARS_MAX = 1_000;

/** The prefix of an address as text; null for this machine's own addresses, and for what is none. */
export function prefixOf(address: string): string | null {
  const bare = address.replace(/%.*$/, ""); // an IPv6 zone
  if (isIPv4(bare)) {
    return bare.startsWith("127.") ? null : `${bare.split(".", 3).join(".")}.0/24`;
  }
  if (isIP(bare) !== 6) {
    return null;
  }
  const groups = groupsOf(bare);
  const [a = 0, b = 0, c = 0, d = 0] = groups;
  if (groups.slice(0, 5).every((group) => group === 0)) {
    const [, , , , , mapped = 0, high = 0, low = 0] = groups;
    return mapped === 0xffff ? prefixOf(`${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`) : null; // ::1 and ::, too
  }
  return `${[a, b, c, d & 0xff00].map((group) => group.toString(16)).join(":")}::/56`;
}

/**
 * The prefix that a request comes from. `header` names the header of a proxy that is trusted to set it; of several addresses in it the last
 * is the one that the proxy has seen. Where it is missing or no address, that of the connection counts.
 */
export function prefixOfRequest({ headers, socket }: IncomingMessage, header: string | null): string | null {
  const given = header === null ? undefined : headers[header.toLowerCase()];
  const text = (Array.isArray(given) ? given.at(-1) : given)?.slice(-HEADER_CHARS_MAX).split(",").at(-1)?.trim() ?? "";
  return prefixOf(isIP(text) === 0 ? (socket.remoteAddress ?? "") : text);
}

/** The eight 16-bit groups of an IPv6 address. */
function groupsOf(address: string): number[] {
  const [, head = address, tail] = /^(.*?)::(.*)$/.exec(address) ?? [];
  const read = (part: string): number[] =>
    part === ""
      ? []
      : part.split(":").flatMap((group) => {
          const [a, b, c, d] = group.split(".").map(Number);
          return d === undefined ? [Number.parseInt(group, 16)] : [(a ?? 0) * 256 + (b ?? 0), (c ?? 0) * 256 + d];
        });
  const [before, after] = [read(head), read(tail ?? "")];
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after];
}
