/** Targets of what another contributor sends: its messages, and both ends of a transfer that it takes part in. */
import { digestOf, type Bytes, type Digest } from "../../src/base/bytes.ts";
import { fetchOver, serveOver } from "../../src/contributor/transfer.ts";
import type { Attach } from "../../src/net/link.ts";
import { createMemoryPair } from "../../src/net/memory.ts";
import { examplePeerMessages } from "../../src/protocol/examples.ts";
import { decodePeerMessage, encodePeerMessage, type PeerMessage } from "../../src/protocol/peer.ts";
import { digestPieces } from "../../src/protocol/pieces.ts";
import { createVirtualClock } from "../../src/sim/clock.ts";
import { outcomeOf, type Subject, type Target } from "./fuzz.ts";

const INPUTS = 1_000_000;
/** One part: what malformed input comes to does not depend on its size, and megabytes would hide what is kept. */
const content = new Uint8Array(1_000).fill(7);
const blob = digestOf(content);
const bytes = content.length;
const digests = digestPieces(content, 1);
const hash = async (some: Bytes): Promise<Digest> => digestOf(some);

const part: PeerMessage = { type: "part", index: 0, bytes: content };

/** A link to whom `attach` makes, over which `input` arrives; resolves to why the link ended, or to null while it is open. */
async function arrive(attach: Attach, input: Bytes): Promise<string | null> {
  let ended: string | null = null;
  const far: Attach = () => ({ message: () => undefined, closed: (reason) => void (ended = reason) });
  const { b } = createMemoryPair({ attachA: attach, attachB: far, messageBytesMax: 2 ** 30 });
  b.send(input);
  await new Promise((resolve) => setImmediate(resolve));
  const reason = ended;
  b.close("Over");
  await new Promise((resolve) => setImmediate(resolve));
  return reason;
}

function fetchSubject(): Subject {
  const corpus = [part, ...examplePeerMessages].map(encodePeerMessage);
  let turns = 0;
  return {
    corpus,
    feed: async (input) => {
      turns += 1;
      const known = turns % 2 === 0 ? digests : null;
      const { attach, done } = fetchOver({ blob, bytes, digests: known, hash, clock: createVirtualClock() });
      let got: Bytes | undefined;
      done.then(
        (all) => (got = all),
        () => undefined,
      );
      const reason = await arrive(attach, input);
      if (got !== undefined && (known === null ? got.length !== bytes : digestOf(got) !== blob)) {
        throw new Error(`It took ${got.length} bytes for ${bytes}, or others`);
      }
      return got === undefined ? (reason === null ? "waits" : "refused") : "accepted";
    },
  };
}

function serveSubject(): Subject {
  return {
    corpus: [{ type: "get", blob } as const, ...examplePeerMessages].map(encodePeerMessage),
    feed: async (input) => {
      let [sent, ends] = [0, 0];
      const onSent = (count: number): void => void (sent += count);
      const { attach } = serveOver({
        blob,
        content,
        clock: createVirtualClock(),
        onSent,
        onEnd: () => void (ends += 1),
      });
      const reason = await arrive(attach, input);
      if (sent > bytes || ends !== 1) {
        throw new Error(`It sent ${sent} of ${bytes} bytes and ended ${ends} times`);
      }
      return reason === null ? "accepted" : "refused";
    },
  };
}

export const PEERS: readonly Target[] = [
  {
    name: "peer-message",
    inputs: INPUTS,
    inputsInTest: 500,
    open: async () => ({
      corpus: examplePeerMessages.map(encodePeerMessage),
      feed: (input) => outcomeOf(decodePeerMessage(input)),
    }),
  },
  { name: "peer-fetch", inputs: 100_000, inputsInTest: 100, open: async () => fetchSubject() },
  { name: "peer-serve", inputs: 100_000, inputsInTest: 100, open: async () => serveSubject() },
];
