/** The marks around a launch on a host's standard output, where drivers and peers may print as well. */
export const MARKS = { begin: "<<<launch ", end: " launch>>>" } as const;
