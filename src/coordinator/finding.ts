/** What somebody who verifies a run finds, in words, and how far the work has come. */

export type Subject =
  | "ledger"
  | "signatures"
  | "contributors"
  | "memory"
  | "charter"
  | "checkpoints"
  | "updates"
  | "versions"
  | "merges"
  | "training";

export interface Finding {
  readonly subject: Subject;
  /** "unchecked" is what cannot be known here, with the reason in its sentence. */
  readonly state: "agrees" | "differs" | "unchecked";
  readonly sentence: string;
  /** Number of the ledger's entry that it is about, where it is about one. */
  readonly entry: number | null;
  /** How many entries, contributions or versions it is about. */
  readonly count: number;
}

export interface Progress {
  readonly sentence: string;
  readonly done: number;
  readonly total: number;
}

export function finding(
  subject: Subject,
  state: Finding["state"],
  sentence: string,
  { entry = null, count = 1 }: { readonly entry?: number | null; readonly count?: number } = {},
): Finding {
  return { subject, state, sentence, entry, count };
}

/** "version 3", "versions 3 to 5 and 9"; of ascending numbers, at least one. */
export function nameVersions(versions: readonly number[]): string {
  const ranges: [number, number][] = [];
  for (const version of versions) {
    const last = ranges.at(-1);
    if (last !== undefined && version === last[1] + 1) {
      last[1] = version;
    } else {
      ranges.push([version, version]);
    }
  }
  const words = ranges.map(([from, to]) =>
    from === to ? `${from}` : `${from} ${to === from + 1 ? "and" : "to"} ${to}`,
  );
  return `${versions.length === 1 ? "version" : "versions"} ${words.join(", ")}`;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
