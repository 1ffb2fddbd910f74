/** What Vite puts in place at build time. */
interface ImportMeta {
  readonly env: { readonly DEV: boolean };
}
