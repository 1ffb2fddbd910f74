/** Every limit of the wire has its name here and is checked before memory is allocated for what it bounds. */

/** Raised with every change of what `golden.test.ts` holds: an older client is told so, and does not dial for ever. */
export const PROTOCOL_VERSION = 2;

/** One message on any lane, header included: what WebRTC stacks carry safely (hard limit elsewhere: 262,144). */
export const FRAME_BYTES_MAX = 65_536;
/** One control message after reassembly, updates excluded. */
export const CONTROL_BYTES_MAX = 262_144;
/** A packed update, in pieces or whole; a run's charter may set less. */
export const CONTRIBUTION_BYTES_MAX = 64 * 1_048_576;
/** One piece of a packed update; one that fits a piece is sent whole. */
export const PIECE_BYTES = 262_144;
/** Pieces of one packed update. */
export const PIECES_MAX = CONTRIBUTION_BYTES_MAX / PIECE_BYTES;
/** Pieces on their way that the relay has not confirmed: what a relay that is killed can lose. */
export const PIECES_AHEAD = 3;
/** The largest message of all: a piece, or a whole update with its header and signature. */
export const MESSAGE_BYTES_MAX = PIECE_BYTES + 4_096;
/** Anything fetched by digest. */
export const BLOB_BYTES_MAX = 1_073_741_824;
/** What has so many bytes at most is checked whole and no other way; of what has more, each piece is checked, too. */
export const UNCUT_BYTES_MAX = 1_048_576;
/** Messages being reassembled on one link at a time. */
export const TRANSFERS_MAX = 4;
/** Text fields: agent, device, name. */
export const TEXT_CHARS_MAX = 200;
/** An SDP blob in a signalling message. */
export const SDP_CHARS_MAX = 16_384;
/** STUN and TURN servers that are handed to a contributor, and characters of an address, username or credential. */
export const ICE_SERVERS_MAX = 4;
export const ICE_CHARS_MAX = 300;
/** Sessions on one relay. */
export const SESSIONS_MAX = 5_000;
/** Links on one relay: sessions and the places kept for members, those that shake hands, those that are told to come back. */
export const LINKS_MAX = 1.1 * SESSIONS_MAX + 1_000;
/** What an update improves is measured as one of so many in a mean, at most: of many the difference would be lost in f32. */
export const AMONG_MAX = 8;
/** A joiner gets an assignment while at least this share of the round's time remains. */
export const JOIN_SHARE = 0.5;
/** Contributions of one round. */
export const CONTRIBUTIONS_MAX = 10_000;
/** Versions whose update can still be fetched. */
export const UPDATES_KEPT = 16;
/** Parameters of one packed update: of as many a checkpoint is one blob. A run has fewer, since its outer state is one, too (`capacity.ts`). */
export const PARAMETERS_MAX = 2 ** 28;
/** Period of pings, and silence after which a peer is taken for dead, at the latest. */
export const PING_MS = 5_000;
export const DEAD_MS = 15_000;
/** Silence is counted in beats of one's own, so that whoever was held up or asleep does not take its own absence for the other's. */
export const BEAT_MS = 2_500;
/** Between two offers of a second link: for this long one that is never opened may take up room. */
export const OFFER_PAUSE_MS = 15_000;

/** Checkpoints from other contributors: time to introduce two and to open the link between them, and silence that ends it. */
export const MEET_MS = 3_000;
export const PEER_OPEN_MS = 8_000;
export const PEER_STALL_MS = 4_000;
/** Whoever serves slower than this, once the link is open, is left for the relay: bytes a second. */
export const PEER_BYTES_PER_S_MIN = 131_072;
/** A link between two contributors is over after this in any case. */
export const PEER_MS_MAX = 180_000;
/** Addresses that are tried of a description that another contributor made. */
export const CANDIDATES_MAX = 16;

/** Lengths of binary fields. An Ed25519 signature has 64 bytes; the simulation's may be shorter. */
export const PUBLIC_KEY_BYTES = 32;
export const NONCE_BYTES = 32;
export const SIGNATURE_BYTES_MAX = 64;
/** Canonical encodings that are signed and travel as `bin`. */
export const HEADER_BYTES_MAX = 2_048;
export const REPORT_BYTES_MAX = 2_048;
/** Canonical encoding of a charter, so that a welcome fits a control message. */
export const CHARTER_BYTES_MAX = 196_608;
/** One ledger entry as it is written: the largest names all contributions of a round. */
export const ENTRY_BYTES_MAX = 1_048_576;
/** Values (map keys included) of one ledger entry. */
export const ENTRY_VALUES_MAX = 16_384;
/** Names of assignments: lower-case letters, digits and hyphens. */
export const ASSIGNMENT_CHARS_MAX = 64;
/** Data sets of a charter and shards of one data set. */
export const DATASETS_MAX = 64;
export const SHARDS_MAX = 1_024;
/** Values (map keys included) and nesting of one msgpack message, by direction. */
export const CONTRIBUTOR_VALUES_MAX = 32;
export const CONTRIBUTOR_DEPTH_MAX = 1;
export const RELAY_VALUES_MAX = 32_768;
export const RELAY_DEPTH_MAX = 8;
/** Rounds, versions and sequences count to this. */
export const COUNT_MAX = 2 ** 31 - 1;
/** Durations in a charter or assignment: a week. */
export const DURATION_MS_MAX = 604_800_000;
/** Inner steps of one assignment, and tokens of one contribution. */
export const STEPS_MAX = 1_000_000;
export const TOKENS_MAX = 2 ** 40;
