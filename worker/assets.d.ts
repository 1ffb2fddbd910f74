/** Vite gives the address of a file that it copies into the build. */
declare module "*?url" {
  const url: string;
  export default url;
}
