/** Under which addresses this machine may be reached. */
import { networkInterfaces, type NetworkInterfaceInfo } from "node:os";

/** Of its interfaces, outside ones first; link-local ones say nothing to other machines. */
export function machineAddresses(): string[] {
  const usable = all().filter(({ address }) => !/^(fe80:|169\.254\.)/i.test(address));
  return usable.sort((a, b) => Number(a.internal) - Number(b.internal)).map(({ address }) => address);
}

/** Of its interfaces to other machines, IPv4 alone. */
export function outsideAddresses(): string[] {
  return all()
    .filter(({ internal, family }) => !internal && family === "IPv4")
    .map(({ address }) => address);
}

function all(): NetworkInterfaceInfo[] {
  return Object.values(networkInterfaces()).flatMap((interfaces) => interfaces ?? []);
}
