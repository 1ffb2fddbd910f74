/** Targets of what another contributor sends: its messages, and both ends of a transfer that it takes part in. */
import { digestOf, type Bytes } from "../../src/base/bytes.ts";
import { fetchOver, serveOver } from "../../src/contributor/transfer.ts";
import type { Attach } from "../../src/net/link.ts";
import { createMemoryPair } from "../../src/net/memory.ts";
import { examplePeerMessages } from "../../src/protocol/examples.ts";
import { PIECE_BYTES } from "../../src/protocol/limits.ts";
import { decodePeerMessage, encodePeerMessage, type PeerMessage } from "../../src/protocol/peer.ts";
import { pieceAt } from "../../src/protocol/pieces.ts";
import { createVirtualClock } from "../../src/sim/clock.ts";
import { outcomeOf, type Subject, type Target } from "./fuzz.ts";

const INPUTS = 1_000_000;
/** Two parts. */
const content = new Uint8Array(PIECE_BYTES + 10).fill(7);
const blob = digestOf(content);
const bytes = content.length;

const parts = [0, 1].map((index): PeerMessage => {
  const { start, end } = pieceAt(index, { bytes, count: 2 });
  return { type: "part", index, bytes: content.subarray(start, end) };
});

/** A link to whom `attach` makes, over which `input` arrives; resolves to why the link ended, or to null while it is open. */
async function arrive(attach: Attach, input: Bytes): Promise<string | null> {
  let ended: string | null = null;
  const far: Attach = () => ({ message: () => undefined, closed: (reason) => void (ended = reason) });
  const { b } = createMemoryPair({ attachA: attach, attachB: far });
  b.send(input);
  await new Promise((resolve) => setImmediate(resolve));
  const reason = ended;
  b.close("Over");
  await new Promise((resolve) => setImmediate(resolve));
  return reason;
}

function fetchSubject(): Subject {
  const clock = createVirtualClock();
  const corpus = [...parts, ...examplePeerMessages].map(encodePeerMessage);
  return {
    corpus,
    feed: async (input) => {
      const { attach, done } = fetchOver({ blob, bytes, clock });
      const reason = await arrive(attach, input);
      const outcome = await Promise.race([
        done.then(
          () => "all",
          () => "ended",
        ),
        Promise.resolve("open"),
      ]);
      if (outcome === "all") {
        throw new Error("One message was taken for two parts");
      }
      return reason === null ? "accepted" : "refused";
    },
  };
}

function serveSubject(): Subject {
  const clock = createVirtualClock();
  return {
    corpus: [{ type: "get", blob } as const, ...examplePeerMessages].map(encodePeerMessage),
    feed: async (input) => {
      let [sent, ends] = [0, 0];
      const onSent = (count: number): void => void (sent += count);
      const { attach } = serveOver({ blob, content, clock, onSent, onEnd: () => void (ends += 1) });
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
