/**
 * `npm run admin` against a real relay with a real contributor, and on its folder when it does not run: every command, and
 * what goes wrong with it.
 */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { followJournal } from "../../src/coordinator/journal.ts";
import { openEmbeddedCopy, openEmbeddedStore } from "../../src/store/embedded.ts";
import { adminOf, isVersion, startRelay, temporaryFolder, type RunningRelay } from "./processes.ts";

const running = new Set<RunningRelay>();
afterEach(async () => {
  await Promise.all([...running].map((relay) => relay.stop("SIGKILL")));
  running.clear();
});

async function relayIn(dir: string, args: readonly string[] = []): Promise<RunningRelay> {
  const relay = await startRelay({ dir, args });
  running.add(relay);
  return relay;
}

test("an operator watches, pauses, bans, backs up and drains a relay that runs", async () => {
  using folder = temporaryFolder();
  const dir = folder.path;
  const admin = adminOf(dir);
  const relay = await relayIn(dir);
  await relay.waitFor(isVersion(2));
  expect(statSync(join(dir, "relay/operator.sock")).mode & 0o777).toBe(0o600);
  expect((await admin("status")).text).toMatch(new RegExp(`^relay +runs as process ${relay.pid}\\n`));
  expect((await admin("ledger", "verify")).text).toMatch(/^The ledger holds together: \d+ entries/);

  const [device] = (await admin("contributors", "--json")).text
    .split("\n")
    .map((line) => JSON.parse(line) as { contributor: string; accepted: number; now: string | null });
  expect(device?.accepted).toBeGreaterThanOrEqual(2);

  const backup = join(dir, "backup");
  expect((await admin("backup", backup)).code).toBe(0);
  expect(statSync(join(backup, "relay.key")).mode & 0o777).toBe(0o600);
  expect(existsSync(join(backup, ".partial"))).toBe(false);
  const again = await admin("backup", backup);
  expect(again).toEqual({ code: 1, text: `Cannot back up: "${backup}" exists and is no empty folder; name another` });

  expect(await admin("pause")).toMatchObject({ code: 0 });
  expect(await admin("pause")).toEqual({ code: 1, text: "Cannot pause: the run is paused already" });
  const banned = await admin("ban", device?.contributor ?? "", "--reason", "Sends noise");
  expect(banned).toMatchObject({ code: 0 });
  const told = await relay.waitFor(({ event, ended }) => event === "contributor" && ended !== undefined);
  expect(told["complaints"]).toContain("The reason given: Sends noise");
  expect((await admin("contributors")).text).toContain("banned: Sends noise");
  expect((await admin("blobs", "prune")).text).toMatch(/^Deleted 0 superfluous blobs \(0 B\); \d+ are needed$/);

  const file = join(dir, "ledger");
  expect((await admin("ledger", "export", file)).code).toBe(0);
  expect((await admin("ledger", "export", file)).text).toBe(
    `Cannot export the ledger: "${file}" exists; name another file`,
  );
  expect((await admin("ledger", "verify", file)).code).toBe(0);
  writeFileSync(file, readFileSync(file).fill(0, 400, 404));
  expect(await admin("ledger", "verify", file)).toMatchObject({ code: 1, text: expect.stringMatching(/^Cannot read/) });

  const drained = await admin("drain");
  expect(drained.text).toMatch(/^Draining: .*\nDrained: the relay has ended$/);
  expect(await relay.exited).toBe(0);
  expect((await admin("status")).text).toMatch(/^relay +does not run, paused\n(.*\n)*banned +1\n/);
  expect(await admin("unban", device?.contributor ?? "")).toMatchObject({ code: 0 });
  expect(await admin("resume")).toMatchObject({ code: 0 });
  expect(await admin("drain")).toEqual({ code: 1, text: "Cannot drain: no relay runs in this folder" });
  const next = await relayIn(dir);
  await next.waitFor(isVersion(3));
});

test("a backup is restored whole or not at all, and the run goes on from it", async () => {
  using folder = temporaryFolder();
  using other = temporaryFolder();
  const relay = await relayIn(folder.path);
  await relay.waitFor(isVersion(1));
  const backup = join(folder.path, "backup");
  expect((await adminOf(folder.path)("backup", backup)).code).toBe(0);
  await relay.stop("SIGKILL");
  const admin = adminOf(other.path);

  expect((await admin("restore", folder.path)).text).toBe(`Cannot restore: there is no backup in "${folder.path}"`);
  const live = join(folder.path, "relay"); // killed, so with SQLite's log beside it
  expect((await admin("restore", live)).text).toContain("is a relay's own folder");
  const copy = await openEmbeddedCopy(backup);
  const durable = (await followJournal(copy.log)).durable();
  await copy.close();
  const pathOf = (digest: string): string => join(backup, "blobs", digest.slice(0, 2), digest);
  const [older, needed] = [durable.heads.at(-2), durable.heads.at(-1)].map((head) => pathOf(head?.digest ?? "")) as [
    string,
    string,
  ];
  const whole = readFileSync(needed);
  writeFileSync(needed, whole.subarray(1));
  expect((await admin("restore", backup)).text).toMatch(/^Cannot restore: blob .*, which the run needs, is missing or/);
  expect(readdirSync(other.path)).toEqual([]);
  writeFileSync(needed, whole);
  writeFileSync(older, "");
  expect((await admin("restore", backup)).text).toMatch(
    /^Restored \d+ ledger entries and \d+ blobs into .*\nLeft out, since they are damaged and .*: 1 blobs of older/,
  );
  const restoredAt = (path: string): string => path.replace(backup, join(other.path, "relay"));
  expect([needed, older].map((path) => existsSync(restoredAt(path)))).toEqual([true, false]);
  expect((await admin("restore", backup)).text).toContain("exists and is no empty folder");
  const key = readFileSync(join(backup, "relay.key"));
  expect(readFileSync(join(other.path, "relay/relay.key"))).toEqual(key);

  const restored = await relayIn(other.path);
  await restored.waitFor(isVersion(2));
});

test("blobs that nothing needs are found and deleted, only those, and older checkpoints where asked", async () => {
  using folder = temporaryFolder();
  const admin = adminOf(folder.path);
  expect(await admin("status")).toEqual({
    code: 1,
    text: expect.stringMatching(`^Cannot find a relay's run in "${join(folder.path, "relay")}"; name its folder`),
  });
  const relay = await relayIn(folder.path);
  await relay.waitFor(isVersion(1));
  expect(await relay.stop("SIGTERM")).toBe(0);
  const store = await openEmbeddedStore(join(folder.path, "relay"));
  await store.blobs.put(new Uint8Array(1_000));
  await store.close();
  expect((await admin("blobs", "prune", "--dry-run")).text).toMatch(/^There are 1 superfluous blobs \(1\.0 kB\)/);
  expect((await admin("blobs", "prune")).text).toMatch(/^Deleted 1 superfluous blobs \(1\.0 kB\)/);
  expect((await admin("blobs", "prune")).text).toMatch(/^Deleted 0 superfluous blobs/);
  const again = await relayIn(folder.path);
  await again.waitFor(isVersion(3));
  await admin("pause");
  expect((await admin("blobs", "prune", "--checkpoints", "1")).text).toMatch(/^Deleted [1-9]\d* superfluous blobs/);
  const backup = join(folder.path, "backup");
  expect((await admin("backup", backup)).code).toBe(0);
  expect(await again.stop("SIGTERM")).toBe(0);
  using other = temporaryFolder();
  const elsewhere = adminOf(other.path);
  expect((await elsewhere("restore", backup)).code).toBe(0);
  expect((await elsewhere("resume")).code).toBe(0);
  await (await relayIn(other.path)).waitFor(isVersion(4));
});

test("an operator who asks for what there is not is told what there is", async () => {
  const admin = adminOf("/nowhere");
  for (const words of [
    [],
    ["frob"],
    ["status", "now"],
    ["ban", "x"],
    ["ban", "x", "--reason", "y"],
    ["blobs"],
    ["--frob"],
    ["blobs", "prune", "--checkpoints", "4"],
  ]) {
    const said = await admin(...words);
    expect(said.code).toBe(2);
    expect(said.text).toContain("npm run admin -- COMMAND");
  }
  expect((await admin("--help")).code).toBe(0);
});
