/**
 * A large update over links that end and to relays that are killed: what has arrived is not sent again, and what is sent again is
 * counted in bytes, frames and all.
 */
import { afterEach, beforeEach, expect, test, type TestContext } from "vitest";
import process from "node:process";
import type { Contributor } from "../../src/contributor/run.ts";
import { PIECE_BYTES, PIECES_AHEAD } from "../../src/protocol/limits.ts";
import { createBareContributor } from "../fixtures/bare-run.ts";
import { start, temporaryFolder, untilFree, type Running } from "./processes.ts";

/** 8 bytes each and a little more: 12 MB, and 50 MB in a sweep. */
const PARAMETERS = process.env["HEDDLE_SWEEP"] === "1" ? 6_240_000 : 1_500_000;
/** Of frames, their acknowledgements and messages, beside what is sent again: three kills in 50 MB cost less than 6 % in all. */
const OVERHEAD_SHARE_MAX = 0.01;

let folder: ReturnType<typeof temporaryFolder>;
let relay: Running | undefined;
let contributor: Contributor | undefined;

beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(async () => {
  await relay?.stop("SIGKILL");
  await contributor?.stop();
  folder[Symbol.dispose]();
});

for (const { lanes, rtc, parameters, kills } of [
  { lanes: "over a WebSocket", rtc: false, parameters: PARAMETERS, kills: [0.2, 0.45, 0.7] },
  // Smaller: a contributor that packs for longer than its link may be silent would go on by the WebSocket.
  { lanes: "begun over WebRTC", rtc: true, parameters: 1_000_000, kills: [0.5] },
]) {
  test(`an upload ${lanes} goes on where it was when its relay is killed, times: ${kills.length}`, async (context) => {
    const port = await startRelay(0, parameters);
    contributor = await createBareContributor({ parameters, port, rtc });
    contributor.start();
    await until(() => contributor?.view().contributions[0] !== undefined);
    const bytes = contributor.view().contributions[0]?.wireBytes ?? 0;
    expect(bytes).toBeGreaterThan(8 * parameters);
    expect(contributor.view().lane).toBe(rtc ? "rtc" : "ws");
    const begun = Date.now();
    for (const share of kills) {
      await until(() => sent() >= share * bytes);
      await relay?.stop("SIGKILL");
      await startRelay(port, parameters);
    }
    await until(() => contributor?.view().status === "waiting");
    const again = sent() - bytes;
    await tell(context, { bytes, again, seconds: (Date.now() - begun) / 1_000 });
    expect(again).toBeLessThan(kills.length * PIECES_AHEAD * PIECE_BYTES + OVERHEAD_SHARE_MAX * bytes);
    await until(() => contributor?.view().accepted === 1);
  });
}

test("an upload goes on over the WebSocket, with a reason, when WebRTC carries nothing any more", async () => {
  const parameters = 1_000_000;
  const port = await startRelay(0, parameters);
  contributor = await createBareContributor({
    parameters,
    port,
    rtc: true,
    rtcBytesMax: 2_000_000,
  });
  contributor.start();
  await until(() => contributor?.view().accepted === 1);
  expect(contributor.view()).toMatchObject({
    lane: "ws",
    // Either notices first: the contributor that nothing is confirmed, or the relay that nothing comes.
    laneReason: expect.stringMatching(/made no progress for 15 s|gone silent on this lane/),
  });
  const bytes = contributor.view().contributions[0]?.wireBytes ?? 0;
  expect(sent() - bytes).toBeLessThan(1_000_000); // what was on its way
});

function startRelay(port: number, parameters = PARAMETERS): Promise<number> {
  return untilFree(async () => {
    relay = start(["test/fixtures/bare-relay.ts", folder.path, String(parameters), String(port)]);
    return Number((await relay.waitFor(({ event }) => event === "listening"))["port"]);
  });
}

function sent(): number {
  return contributor?.view().bytesUp ?? 0;
}

async function until(done: () => boolean): Promise<void> {
  for (const patience = Date.now() + 120_000; !done();) {
    if (Date.now() > patience) {
      throw new Error(`Nothing came of it in two minutes: ${contributor?.view().sentence}\n${relay?.errors()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

async function tell(
  { annotate }: TestContext,
  { bytes, again, seconds }: { readonly bytes: number; readonly again: number; readonly seconds: number },
): Promise<void> {
  const percent = ((100 * again) / bytes).toFixed(2);
  await annotate(`${bytes} bytes in ${seconds.toFixed(1)} s; ${again} more were sent, ${percent} %, frames and all`);
}
