/** The far end of `bench/transfer.ts`, a process of its own: answers offers, raw or of links, and does what the near end asks. */
import process from "node:process";
import { createRtcAnswerer } from "../../src/net/rtc-node.ts";
import { openEmbeddedStore } from "../../src/store/embedded.ts";
import { hashBytes } from "../../src/store/hash.ts";
import { createMemoryStore } from "../../src/store/memory.ts";
import { answerAll } from "./asked.ts";
import { payloadOf, servePayload, takeUploads } from "./ends.ts";
import { answerRaw } from "./node.ts";

/** What the near end wants answered. */
export interface Question {
  readonly kind: "raw" | "memory" | "disk" | "serve";
  readonly offer: string;
}

const [bytes, dir] = process.argv.slice(2) as [string, string];
const payload = payloadOf(Number(bytes));
const digest = await hashBytes(payload);
const answerer = await createRtcAnswerer();
const disk = await openEmbeddedStore(dir);

async function answer({ kind, offer }: Question): Promise<string> {
  if (kind === "raw") {
    return answerRaw(offer, payload.length);
  }
  if (kind === "serve") {
    return answerer.answer(offer, servePayload(payload, digest));
  }
  return answerer.answer(offer, takeUploads((kind === "disk" ? disk : createMemoryStore()).keys));
}

answerAll(answer);
