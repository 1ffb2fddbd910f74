/** Builds the contributor page, the widget's frame and their workers into `dist/`. Shaders and other text are inlined. */
import { defineConfig, type Plugin } from "vite";

/** `import text from "./x.wgsl" with { type: "text" }`, as Node and Deno have it. */
export function textPlugin(): Plugin {
  return {
    name: "text",
    enforce: "pre",
    transform(code, id) {
      return id.endsWith(".wgsl") ? { code: `export default ${JSON.stringify(code)};`, map: null } : null;
    },
  };
}

export default defineConfig({
  plugins: [textPlugin()],
  worker: { format: "es", plugins: () => [textPlugin()] },
  build: {
    target: "es2023",
    rollupOptions: { input: { index: "index.html", widget: "widget.html" } },
  },
});
