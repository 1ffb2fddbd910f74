/**
 * The instruction set shared by the compiler (`src/wasm/compile.ts`) and the interpreter (`index.ts` beside this file):
 * the only source file that is both TypeScript and AssemblyScript, so it holds nothing but integer constants.
 *
 * A plan in memory: 16 words of header, then instructions of 32 words each, all 32 bits wide. Pointers are byte addresses,
 * leading dimensions and strides are bytes, floats stand as their bits. Word 0 of an instruction is its opcode, word 1 the
 * number of tiles that threads claim; its other words are listed beside each opcode. A tile is a piece of the output that
 * is computed by one thread from beginning to end, in an order that does not depend on how the output was cut.
 */

/** Header words: number of instructions, control block, scratch memory of thread 0, bytes of scratch per thread. */
export const PLAN_COUNT = 0;
export const PLAN_CONTROL = 1;
export const PLAN_SCRATCH = 2;
export const PLAN_SCRATCH_BYTES = 3;
export const PLAN_HEADER_BYTES = 64;
export const INSTRUCTION_WORDS = 32;
export const INSTRUCTION_BYTES = 128;

/** Byte offsets in the control block, each on a cache line of its own where threads contend. */
export const CONTROL_EPOCH = 0;
export const CONTROL_PLAN = 4;
export const CONTROL_NEXT = 64;
export const CONTROL_ARRIVED = 128;
export const CONTROL_GENERATION = 192;
export const CONTROL_BYTES = 256;

/** `run` returns one of these. */
export const RUN_DONE = 0;
export const RUN_LOST = 1;

/** Elements of one elementwise tile, and of one partial sum of `norm`: part of what the numbers are. */
export const BLOCK = 4096;
/** Queries or keys of one panel of attention: the width of a packed right operand. */
export const LANES = 8;
/** Panels that one tile of attention computes one after another; changes speed only. */
export const PANELS_PER_TILE = 2;
/**
 * Inner dimension of one packed block of matmul; changes speed only. A panel of b (16 KiB) and one of a (8 KiB) share the first
 * cache; a deeper block would not fit everywhere, a shallower one reads and writes the output's strided rows more often.
 */
export const DEPTH_BLOCK = 512;
/** Columns of one tile of the gain's gradient; changes speed only. */
export const GAIN_COLUMNS = 16;
/** Columns of one tile of a sum of rows; changes speed only. */
export const SUM_COLUMNS = 256;
/** Bytes at the beginning of a thread's scratch memory for a 4 × 8 tile that sticks out over an edge. */
export const EDGE_BYTES = 128;

/**
 * Packs a matrix [k,n] into panels of 8 columns, [⌈n/8⌉][k][8], zeros beyond n.
 * 2 source, 3 destination, 4 k, 5 n, 6 bytes from row to row of the source, 7 transposed (source is [n,k]), 8 panels of a tile.
 */
export const PACK = 1;
/**
 * 2 a, 3 packed b, 4 out, 5 addend or 0, 6 m, 7 n, 8 k, 9 bytes from row to row of a, 10 a is transposed, 11 rows and
 * 12 columns (a multiple of 8) of a tile, 13 tiles across, 14 bias or 0.
 */
export const MATMUL = 2;
/** 2 table, 3 tokens, 4 out, 5 rows, 6 columns, 7 rows of a tile. */
export const EMBEDDING = 3;
/** 2 dout, 3 order, 4 offsets, 5 addend or 0, 6 dtable, 7 rows of the table, 8 columns, 9 rows of a tile. */
export const EMBEDDING_BACKWARD = 4;
/** 2 x, 3 gain, 4 out, 5 rstd, 6 rows, 7 columns, 8 eps, 9 rows of a tile. */
export const RMS_NORM = 5;
/** 2 x, 3 gain, 4 rstd, 5 dout, 6 addend or 0, 7 dx, 8 rows, 9 columns, 10 rows of a tile. */
export const RMS_NORM_DX = 6;
/** 2 x, 3 rstd, 4 dout, 5 dgain, 6 rows, 7 columns. */
export const RMS_NORM_DGAIN = 7;
/** 2 x, 3 out, 4 table, 5 rows, 6 time, 7 head width, 8 heads, 9 inverse, 10 rows of a tile. */
export const ROPE = 8;
/**
 * 2 q, 3 packed key rows, 4 packed value columns, 5 out, 6 lse, 7 batch, 8 time, 9 heads, 10 kv heads, 11 head width,
 * 12 scale·log₂e, 13 tiles of a head, 14 to 16 scratch offsets of the scores, of a right operand, of the sums.
 */
export const ATTENTION = 9;
/** 2 dout, 3 out, 4 delta, 5 rows, 6 time, 7 heads, 8 head width, 9 rows of a tile. */
export const ATTENTION_DELTA = 10;
/**
 * dq. 2 q, 3 packed key rows, 4 packed key columns, 5 packed value rows, 6 dout, 7 lse, 8 delta, 9 dq, 10 batch, 11 time,
 * 12 heads, 13 kv heads, 14 head width, 15 scale·log₂e, 16 scale, 17 tiles of a head, 18 to 21 scratch offsets of the
 * probabilities, of the score gradients, of a right operand, of the sums.
 */
export const ATTENTION_QUERIES = 11;
/**
 * dk and dv. 2 k, 3 v, 4 packed query rows, 5 packed query columns, 6 and 7 the same of dout, 8 lse, 9 delta, 10 dk, 11 dv,
 * 12 batch, 13 time, 14 heads, 15 kv heads, 16 head width, 17 scale, 18 tiles of a kv head, 19 to 22 scratch offsets of the
 * probabilities, of the score gradients, of the right operands, of the sums.
 */
export const ATTENTION_KEYS = 21;
/**
 * Packs every head of every sequence as left operands. 2 source, 3 by rows [⌈time/4⌉][width][4] or 0, 4 by columns
 * [⌈width/4⌉][time][4] or 0, 5 time, 6 heads, 7 head width, 8 factor of what is packed by rows.
 */
export const PACK_HEADS = 22;
/** 2 gate, 3 up, 4 out, 5 elements. */
export const SWIGLU = 12;
/** 2 gate, 3 up, 4 dout, 5 dgate, 6 dup, 7 elements. */
export const SWIGLU_BACKWARD = 13;
/** 2 a, 3 b, 4 out, 5 elements. */
export const ADD = 14;
/** 2 x, 3 out, 4 rows, 5 columns. */
export const SUM_ROWS = 23;
/** 2 logits, 3 targets, 4 losses, 5 rows, 6 columns, 7 rows of a tile. */
export const CROSS_ENTROPY = 15;
/** 2 x, 3 out, 4 elements. */
export const MEAN = 16;
/** 2 logits, 3 targets, 4 dlogits, 5 rows, 6 columns, 7 rows of a tile, 8 losses in the mean. */
export const CROSS_ENTROPY_BACKWARD = 17;
/** 2 x, 3 partial sums (f64), 4 elements. */
export const NORM_BLOCKS = 18;
/** 2 partial sums (f64), 3 their number, 4 out. */
export const NORM_TOTAL = 19;
/** 2 params, 3 grads, 4 m, 5 v, 6 norm, 7 hyper, 8 elements, 9 elements that decay. */
export const ADAMW = 20;
/** 2 grads, which become what is to be orthogonal, 3 m, 4 norm, 5 hyper, 6 elements. */
export const MUON_MOMENTUM = 26;
/** 2 x, 3 its norm, 4 elements. */
export const MUON_SCALE = 27;
/** 2 gram, 3 its square, which becomes the polynomial, 4 rows, 5 to 7 its coefficients. */
export const MUON_MIX = 28;
/** 2 params, 3 x, 4 hyper, 5 elements, 6 what x is multiplied by. */
export const MUON_STEP = 29;
/** 2 residual, 3 base, 4 params, 5 scale, 6 elements. */
export const FEEDBACK = 24;
/** 2 residual, 3 slots, 4 elements, 5 entries kept of a chunk, 6 words of a slot. A tile is a chunk. */
export const PACK_CHUNK = 25;
/** Elements of a chunk. */
export const CHUNK = 4096;
/**
 * Scratch memory of PACK_CHUNK: bit patterns (u32), then, at these offsets, those in the bin at hand (u32), counts of bins (u32),
 * picked indices (u16), and of each class of magnitudes number and sum (u32).
 */
export const PACK_REST = 16_384;
export const PACK_COUNTS = 32_768;
export const PACK_PICKED = 40_960;
export const PACK_NUMBERS = 49_152;
export const PACK_SUMS = 53_248;
export const PACK_BYTES = 57_344;
