/** What the sessions of a load contribute to, and over which line. */
import { FAIR, type Weather } from "../../test/fixtures/line.ts";

export interface Load {
  /** Changes to the sample charter. */
  readonly charter: object;
  /** Whether each player fetches a new version's update before it is ready, as whoever trains on it must. */
  readonly fetchesUpdates: boolean;
  /** Null: no line between them and the relay. */
  readonly weather: Weather | null;
}

/**
 * About 7,000 parameters: updates of some hundred bytes, which is the least that can be asked of a relay. The referee audits nothing, so
 * that relays are measured and not its arithmetic.
 */
const LIGHT: Load = {
  charter: {
    model: { channels: 16, layers: 1, heads: 2, kvHeads: 1, hidden: 32, time: 16 },
    inner: { batch: 2 },
    uplink: { keep: 32, bits: 2, beta: 0.2, together: 0, carry: false },
    trust: { auditShare: 0 },
  },
  fetchesUpdates: false,
  weather: null,
};

/**
 * What `npm start` begins: its model, its updates, its share of audits, over home connections. Players do not train, so their updates are
 * next to nothing, and improve nothing: what they must improve is not asked.
 */
const SAMPLE: Load = {
  charter: { trust: { normMax: 0, improvementMin: -1e9, improvementShare: 0, harmMax: 1e9 } },
  fetchesUpdates: true,
  weather: { ...FAIR, delayMs: 20 },
};

export const LOADS = { light: LIGHT, sample: SAMPLE } as const;
export type LoadName = keyof typeof LOADS;
