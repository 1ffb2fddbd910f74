/** The page's decisions over a stand-in for its markup and its worker; what it looks like is for a browser (test/e2e/page.test.ts). */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { sampleRun, sampleView } from "../../test/fixtures/ui/samples.ts";
import type { Digest } from "../base/bytes.ts";
import type { ContributorView } from "../contributor/view.ts";
import type { RunView } from "../protocol/run-view.ts";
import { APP_AGREEMENT_MS } from "../ui/agreement.ts";
import type { FeedHandlers } from "../ui/feed.ts";

/** What the page touches of any element. */
class Part extends EventTarget {
  readonly dataset: Record<string, string> = {};
  readonly classList = { toggle: () => undefined };
  hidden = false;
  textContent = "";
  on = false;
  duty = 0.5;
  sentence = "";
  ask = async (): Promise<boolean> => true;
  setAttribute(): void {}
  append(): void {}
  replaceChildren(): void {}
  focus(): void {}
  closest(): null {
    return null;
  }
}

const run = sampleRun(3);
const other: RunView = { ...run, run: "f".repeat(64) as Digest };
const training = sampleView({ status: "training", duty: 0.5, tick: 1 });
let parts = new Map<string, Part>();
let tab = new EventTarget();
let mountPage: typeof import("./page.ts").mountPage;

beforeAll(async () => {
  const part = (name: string): Part => parts.get(name) ?? (parts.set(name, new Part()).get(name) as Part);
  vi.stubGlobal("HTMLElement", EventTarget);
  vi.stubGlobal("document", { getElementById: part, querySelector: part, createElement: () => new Part() });
  vi.stubGlobal("addEventListener", (type: string, listener: EventListener) => tab.addEventListener(type, listener));
  vi.stubGlobal("isSecureContext", true);
  ({ mountPage } = await import("./page.ts"));
});
afterAll(() => vi.unstubAllGlobals());

/** A tab of a browser that keeps `kept`. */
function open(kept = new Map<string, string>(), served: RunView | null = run) {
  parts = new Map();
  const own = new EventTarget();
  tab = own;
  const trainer = {
    start: vi.fn(async () => ({ ok: true, sentence: "" }) as const),
    stop: vi.fn(),
    setPeers: vi.fn(),
    generate: () => new Promise<never>(() => {}),
    pause: () => undefined,
    resume: () => undefined,
    setDuty: () => undefined,
    abort: () => undefined,
    leave: () => undefined,
    close: () => undefined,
  };
  const setItem = vi.fn((key: string, value: string) => void kept.set(key, value));
  const storeOf = (map: Map<string, string>) => ({
    getItem: (key: string) => map.get(key) ?? null,
    setItem: map === kept ? setItem : (key: string, value: string) => void map.set(key, value),
    removeItem: (key: string) => void map.delete(key),
  });
  const clock = { nowMs: 1_000 };
  const takePlace = vi.fn(async () => () => undefined);
  let handlers: FeedHandlers | undefined;
  let told: { view(view: ContributorView): void; crash(message: string): void } | undefined;
  mountPage({
    openFeed: (given) => {
      handlers = given;
      return { retry: () => undefined, close: () => undefined };
    },
    openTrainer: (_settings, view, crash) => {
      told = { view, crash };
      return trainer;
    },
    takePlace,
    kept: storeOf(kept),
    session: storeOf(new Map()),
    nowMs: () => clock.nowMs,
  });
  const serve = (view: RunView): void => {
    handlers?.run(view);
    handlers?.state("live");
  };
  if (served !== null) {
    serve(served);
  }
  const [panel, peers] = [parts, parts.get("heddle-peers") as Part];
  return {
    trainer,
    takePlace,
    serve,
    kept,
    setItem,
    clock,
    told: () => told as NonNullable<typeof told>,
    words: (name: string) => panel.get(name)?.textContent,
    sharing: () => peers.on,
    tick: (on: boolean) => {
      peers.on = on;
      peers.dispatchEvent(Object.assign(new Event("heddle-peers"), { detail: on }));
    },
    press: async (name: "main" | "other") => {
      panel.get(name)?.dispatchEvent(Object.assign(new Event("click"), { detail: 1 }));
      await new Promise((resolve) => setImmediate(resolve));
    },
    write: () => panel.get("heddle-try")?.dispatchEvent(Object.assign(new Event("heddle-generate"), { detail: {} })),
    /** What another tab of the browser did to what is kept reaches this one. */
    hear: (key: string) => own.dispatchEvent(Object.assign(new Event("storage"), { key })),
  };
}

async function openTraining(kept?: Map<string, string>) {
  const page = open(kept);
  await page.press("main");
  page.told().view(training);
  expect([page.words("main"), page.words("other")]).toEqual(["Pause", "Stop"]);
  return page;
}

test("the page offers what it did before when its program ends that only wrote, and another try when it worked", async () => {
  const page = open();
  page.write();
  page.told().crash("The training program stopped");
  expect(page.words("main")).toBe("Contribute");
  await page.press("main");
  page.told().crash("The training program stopped");
  expect([page.words("state"), page.words("main")]).toEqual(["The training program stopped.", "Try again"]);
});

test("the page keeps the list of contributions when it has changed, not with every view", async () => {
  const page = await openTraining();
  const written = page.setItem.mock.calls.length;
  page.told().view({ ...training, step: training.step + 1 });
  expect(page.setItem.mock.calls.length).toBe(written);
  page.told().view({ ...training, contributions: training.contributions.slice(1) });
  expect(page.setItem.mock.calls.length).toBe(written + 1);
});

test("index.html has no link that would end the work in its tab", () => {
  const links = readFileSync(new URL("../../index.html", import.meta.url), "utf8").match(/<a [^>]*>/g) ?? [];
  expect(links.length).toBeGreaterThan(5);
  expect(links.filter((link) => !/ href="#|target="_blank"/.test(link))).toEqual([]);
});

describe("the page's consent", () => {
  test("taken back in another tab, it stops the work here", async () => {
    const page = await openTraining();
    page.kept.delete("heddle.agreement");
    page.hear("heddle.agreement");
    expect(page.trainer.stop).toHaveBeenCalledOnce();
    expect(page.words("main")).toBe("Contribute");
  });

  test("ends while the work goes on, and the work with it", async () => {
    const page = await openTraining();
    page.clock.nowMs += APP_AGREEMENT_MS;
    page.told().view(training);
    expect(page.trainer.stop).toHaveBeenCalledOnce();
    expect([page.words("main"), page.words("status")]).toEqual(["Contribute", page.words("state")]);
    expect(page.words("state")).toMatch(/^Your agreement has ended/);
    await page.press("main");
    page.told().view(training);
    await page.press("other"); // stops
    expect(page.words("state")).not.toMatch(/agreement/);
  });

  test("bears a clock that is corrected while the device works, but starts nothing with one from the future", async () => {
    const page = await openTraining();
    page.tick(true);
    page.clock.nowMs -= 1;
    page.told().view(training);
    expect(page.trainer.stop).not.toHaveBeenCalled();
    expect([page.words("main"), page.sharing()]).toEqual(["Pause", true]);
    await page.press("other"); // stops
    expect(page.words("hint")).toMatch(/press the button and agree/);
  });

  test("to sharing the model directly ends with the agreement that it was given under, and in all tabs", async () => {
    const page = await openTraining();
    page.tick(true);
    page.told().view(training);
    expect(page.sharing()).toBe(true);
    expect(open(page.kept).sharing()).toBe(true);
    expect(open(page.kept, other).sharing()).toBe(false);
    const moved = open(page.kept);
    moved.serve(other);
    expect(moved.sharing()).toBe(false);
    expect(open(new Map([["heddle.peers", "1"]])).sharing()).toBe(false); // as it was kept once
    const beside = open(page.kept);
    beside.tick(false);
    page.hear("heddle.peers");
    expect(page.trainer.setPeers).toHaveBeenLastCalledWith(false);
    beside.tick(true);
    await beside.press("other"); // takes back the agreement
    expect(beside.sharing()).toBe(false);
    beside.clock.nowMs += 1;
    await beside.press("main");
    expect(open(beside.kept).sharing()).toBe(false);
  });

  test("to sharing the model directly may be given before the agreement, and before the run is known", async () => {
    const page = open(new Map(), null);
    page.tick(true);
    page.serve(run);
    await page.press("main");
    page.told().view(training);
    expect([page.sharing(), open(page.kept).sharing()]).toEqual([true, true]);
  });

  test("to sharing the model directly ends with an agreement that ends while nothing runs", async () => {
    const page = await openTraining();
    page.tick(true);
    await page.press("other"); // stops
    page.clock.nowMs += APP_AGREEMENT_MS;
    await page.press("main");
    expect([page.sharing(), open(page.kept).sharing()]).toEqual([false, false]);
    await page.press("other");
    page.clock.nowMs += APP_AGREEMENT_MS;
    page.tick(true); // afresh
    await page.press("main");
    expect(page.sharing()).toBe(true);
  });

  test("to sharing the next run's model is not undone by a view of the former run", async () => {
    const page = await openTraining();
    page.serve(other);
    page.tick(true);
    page.told().view(training);
    expect(page.sharing()).toBe(true);
  });

  test("taken back while the page waits for its place, it starts nothing", async () => {
    const page = open();
    page.takePlace.mockImplementationOnce(async () => {
      page.kept.delete("heddle.agreement");
      return () => undefined;
    });
    await page.press("main");
    expect(page.trainer.start).not.toHaveBeenCalled();
    expect(page.words("main")).toBe("Contribute");
  });
});
