/** Lends WebRTC connections to the worker. */
export function lendRtc(): void {}
