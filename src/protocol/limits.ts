/** Every limit of the wire has its name here and is checked before memory is allocated for what it bounds. */

export const PROTOCOL_VERSION = 1;

/** One message on any lane, header included: what WebRTC stacks carry safely (hard limit elsewhere: 262,144). */
export const FRAME_BYTES_MAX = 65_536;
/** One control message after reassembly, updates excluded. */
export const CONTROL_BYTES_MAX = 262_144;
/** A contribution message after reassembly; a run's charter may set less. */
export const CONTRIBUTION_BYTES_MAX = 64 * 1_048_576;
/** Anything fetched by digest. */
export const BLOB_BYTES_MAX = 1_073_741_824;
/** Messages being reassembled on one link at a time. */
export const TRANSFERS_MAX = 4;
/** Text fields: agent, device, name. */
export const TEXT_CHARS_MAX = 200;
/** An SDP blob in a signalling message. */
export const SDP_CHARS_MAX = 16_384;
/** Sessions on one relay. */
export const SESSIONS_MAX = 1_000;
/** Parameters of a model that this protocol version can carry. */
export const PARAMETERS_MAX = 2 ** 28;
/** Heartbeat period, and silence after which a peer is taken for dead. */
export const PING_MS = 5_000;
export const DEAD_MS = 15_000;
