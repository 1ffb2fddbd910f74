import { describe, expect, test } from "vitest";
import { safeStore } from "./place.ts";

describe("safeStore()", () => {
  test("says what the browser's store has, also when another tab has changed it", () => {
    const kept = new Map<string, string>();
    const tab = () =>
      safeStore(() => ({
        getItem: (key) => kept.get(key) ?? null,
        setItem: (key, value) => void kept.set(key, value),
        removeItem: (key) => void kept.delete(key),
      }));
    const [one, other] = [tab(), tab()];
    one.setItem("agreement", "yes");
    expect(other.getItem("agreement")).toBe("yes");
    other.removeItem("agreement");
    expect(one.getItem("agreement")).toBeNull();
  });

  test("remembers for as long as the page is open what a full store refuses, and everything where there is none", () => {
    const refuse = (): never => {
      throw new DOMException("Full", "QuotaExceededError");
    };
    const full = safeStore(() => ({ getItem: () => "old", setItem: refuse, removeItem: () => undefined }));
    expect(full.getItem("duty")).toBe("old");
    full.setItem("duty", "new");
    expect(full.getItem("duty")).toBe("new");
    const denied = safeStore(refuse);
    denied.setItem("duty", "1");
    expect(denied.getItem("duty")).toBe("1");
    denied.removeItem("duty");
    expect(denied.getItem("duty")).toBeNull();
  });
});
