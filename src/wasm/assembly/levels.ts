/** Classes of magnitudes, as in `src/tensor/magnitude.ts`: the smallest and the largest, and bits of an f32 pattern below them. */
export const CLASS_MIN: i32 = 16;
export const CLASS_MAX: i32 = 4079;
export const CLASS_SHIFT: i32 = 19;
