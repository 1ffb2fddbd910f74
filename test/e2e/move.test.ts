/** A run that moves: from a folder to NATS and back by backups, one of them beside a relay that works, and what must not be overwritten. */
import { copyFileSync, existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { Digest } from "../../src/base/bytes.ts";
import { checkLedger } from "../../src/coordinator/check.ts";
import { blobsOf } from "../../src/coordinator/state.ts";
import { verifySignature } from "../../src/net/device-key.ts";
import { restoreInto } from "../../src/relay/backup.ts";
import { startNats, type Nats } from "../../src/store/nats-server.fixture.ts";
import { openNatsStore } from "../../src/store/nats.ts";
import { entriesOf, type Store } from "../../src/store/store.ts";
import { adminOf, isVersion, launchRelay, temporaryFolder, type PrintedEvent, type Running } from "./processes.ts";

const running = new Set<Running>();
afterEach(async () => {
  await Promise.all([...running].map((relay) => relay.stop("SIGKILL")));
  running.clear();
});

function relayIn(dir: string, args: readonly string[] = []): Running {
  const relay = launchRelay({ dir, args });
  running.add(relay);
  return relay;
}

/** Waits for a version that is new since the relay is there; resolves to what it said when it began to listen. */
async function nextVersion(relay: Running): Promise<PrintedEvent> {
  const listening = await relay.waitFor(({ event }) => event === "listening");
  await relay.waitFor(isVersion(Number(listening["version"]) + 1));
  return listening;
}

function streamsOf(nats: Nats): Promise<string[]> {
  return nats.manage(async ({ streams }) => {
    const found: string[] = [];
    for await (const { config } of streams.list()) {
      found.push(config.name);
    }
    return found;
  });
}

test("a run goes from a folder to NATS and back, and is one run all the way", async () => {
  using folder = temporaryFolder();
  await using nats = await startNats({ dir: folder.path });
  const at = (name: string): string => join(folder.path, name);
  const [first, second, third] = [at("first"), at("second"), at("third")];
  const [there, back, again, onceMore] = [at("there"), at("back"), at("again"), at("once more")];
  const alone = relayIn(first);
  const { run } = await nextVersion(alone);
  expect(await alone.stop("SIGTERM")).toBe(0);
  expect((await adminOf(first)("backup", there)).code).toBe(0);

  const admin = adminOf(second);
  expect((await admin("backup", back, "--nats", nats.url("my-rnu"))).text).toMatch(
    /^Cannot open the store at nats:.*\/my-rnu: there is none, .*; look at the name at the end of the address$/,
  );
  expect(existsSync(back)).toBe(false);
  expect(await streamsOf(nats)).toEqual([]);
  const files = readdirSync(there, { recursive: true });
  const restored = await admin("restore", there, "--nats", nats.url("my-run"));
  expect(restored).toEqual({
    code: 0,
    text: expect.stringMatching(
      /^Restored \d+ ledger entries and \d+ blobs into "nats:.*; start the relay with the same --nats$/,
    ),
  });
  expect(readdirSync(there, { recursive: true }), "a backup is only read").toEqual(files);
  // As if the first had been killed at its very end.
  expect(await admin("restore", there, "--nats", nats.url("my-run"))).toEqual({
    code: 0,
    text: restored.text.replace("Restored", "Restored before:"),
  });

  const leader = relayIn(second, ["--nats", nats.url("my-run")]);
  const onNats = await nextVersion(leader);
  expect(onNats).toMatchObject({ run });
  expect(Number(onNats["version"])).toBeGreaterThan(0);
  const refused = await admin("restore", there, "--nats", nats.url("my-run"));
  expect(refused).toEqual({
    code: 1,
    text: expect.stringMatching(
      /^Cannot restore: ".*\/my-run" is a relay's: process \d+ on .*, which runs or was killed; name/,
    ),
  });
  // Both ways of asking for it, beside the relay that works.
  expect((await admin("backup", back)).text).toMatch(/^Backed up the ledger and \d+ blobs \(/);
  expect(readdirSync(back).sort()).toEqual(["blobs", "heddle.sqlite", "relay.key"]);
  const elsewhere = adminOf(third);
  expect((await elsewhere("backup", again, "--nats", nats.url("my-run"))).code).toBe(0);
  expect(await leader.stop("SIGTERM")).toBe(0);
  const spoiled = await openNatsStore(nats.address("my-run"));
  const { durable } = await checkLedger(entriesOf(spoiled.log), verifySignature);
  const needed = blobsOf(durable, 1);
  const [older] = [...blobsOf(durable)].filter((digest) => !needed.has(digest)) as [Digest];
  await spoiled.blobs.delete(older);
  await spoiled.blobs.put(Uint8Array.of(1), older);
  await spoiled.close();
  expect((await elsewhere("backup", at("without"), "--nats", nats.url("my-run"))).text).toMatch(
    /^Backed up .*\nLeft out, since .* does not need them: 1 blobs of older versions\n/,
  );
  const released = await admin("restore", there, "--nats", nats.url("my-run"));
  expect(released.text).toMatch(/^Cannot restore: ".*\/my-run" is a relay's, which has ended; name another store/);

  expect((await elsewhere("restore", again)).code).toBe(0);
  expect((await elsewhere("ledger", "verify")).text).toMatch(
    new RegExp(`^The ledger holds together: .*\\n +run +${String(run)}\\n`),
  );
  const home = relayIn(third);
  const last = await nextVersion(home);
  expect(last).toMatchObject({ run });
  expect(Number(last["version"])).toBeGreaterThan(Number(onNats["version"]));
  expect(await home.stop("SIGTERM")).toBe(0);
  expect((await elsewhere("ledger", "verify")).text).toMatch(/^The ledger holds together/);

  // The epochs of leaders go on, too, where it moves once more.
  expect((await elsewhere("backup", onceMore)).code).toBe(0);
  expect((await elsewhere("restore", onceMore, "--nats", nats.url("other-run"))).code).toBe(0);
  const once = relayIn(third, ["--nats", nats.url("other-run")]);
  expect(await once.waitFor(({ event }) => event === "leading")).toMatchObject({ epoch: 2 });
  expect(await nextVersion(once)).toMatchObject({ run });
  expect(await once.stop("SIGTERM")).toBe(0);
});

test("a restore into NATS that was interrupted is finished by the next, and served by nobody before", async () => {
  using folder = temporaryFolder();
  await using nats = await startNats({ dir: folder.path });
  const [first, second] = [join(folder.path, "first"), join(folder.path, "second")];
  const [backup, later] = [join(folder.path, "backup"), join(folder.path, "later")];
  const alone = relayIn(first);
  await nextVersion(alone);
  expect((await adminOf(first)("backup", backup)).code).toBe(0);
  await alone.waitFor(isVersion(3));
  expect((await adminOf(first)("backup", later)).code).toBe(0);
  expect(await alone.stop("SIGTERM")).toBe(0);

  /** Opens the store of a restore that is killed after two blobs, or after one entry of the ledger. */
  const target = (killed: "blobs" | "ledger") => ({
    shown: "my-run",
    open: async (): Promise<Store> => {
      const store = await openNatsStore(nats.address("my-run"));
      let puts = 0;
      const put: Store["blobs"]["put"] = async (...args) => {
        puts += 1;
        if (killed === "blobs" && puts > 2) {
          throw new Error("killed");
        }
        return store.blobs.put(...args);
      };
      const append: Store["log"]["append"] = async (after, entries) => {
        await store.log.append(after, entries.slice(0, 1));
        throw new Error("killed");
      };
      const log: Store["log"] = {
        append,
        length: () => store.log.length(),
        read: (...args) => store.log.read(...args),
      };
      return { ...store, log, blobs: { ...store.blobs, put } };
    },
  });
  const admin = adminOf(second);
  const serve = async (): Promise<void> => {
    const early = relayIn(second, ["--nats", nats.url("my-run"), "--no-contributor"]);
    expect(await early.exited).toBe(1);
    expect(early.errors()).toMatch(
      /^Cannot lead the run: the restore of a backup, .* is under way here or was interrupted; run again, it goes on\n$/,
    );
  };
  await expect(restoreInto(backup, target("blobs"))).rejects.toThrow("killed");
  await serve();
  const mixed = await admin("restore", later, "--nats", nats.url("my-run"));
  expect(mixed.text).toMatch(
    /^Cannot restore: ".*\/my-run" is for another backup \(the restore of a backup, whose last/,
  );
  const store = await openNatsStore(nats.address("my-run"));
  expect([(await store.blobs.list()).length, await store.log.length()]).toEqual([2, 0]);
  await expect(restoreInto(backup, target("ledger"))).rejects.toThrow("killed");
  expect(await store.log.length()).toBe(1);
  await serve();
  const half = await admin("backup", join(folder.path, "half"), "--nats", nats.url("my-run"));
  expect(half).toEqual({
    code: 1,
    text: expect.stringMatching(/^Cannot back up: the restore of a backup, whose last/),
  });
  expect(existsSync(join(folder.path, "half"))).toBe(false);
  expect((await admin("restore", backup, "--nats", nats.url("my-run"))).code).toBe(0);
  await store.close();
  const relay = relayIn(second, ["--nats", nats.url("my-run")]);
  await nextVersion(relay);
  expect((await admin("ledger", "verify")).code).toBe(0);

  // What holds something else is left as it is, and a backup that is damaged does not get that far.
  const taken = await openNatsStore(nats.address("taken"));
  await taken.keys.set("dataset/mine", Uint8Array.of(1));
  expect((await admin("restore", backup, "--nats", nats.url("taken"))).text).toMatch(
    /^Cannot restore: ".*\/taken" is not empty, it holds 0 ledger entries, 1 keys and 0 blobs; name another store/,
  );
  expect(await taken.keys.list("")).toEqual(["dataset/mine"]);
  await taken.close();
  copyFileSync(join(first, "charter.json"), join(later, "relay.key"));
  expect((await admin("restore", later, "--nats", nats.url("untouched"))).code).toBe(1);
  expect((await streamsOf(nats)).filter((name) => name.startsWith("untouched"))).toEqual([]);
});
