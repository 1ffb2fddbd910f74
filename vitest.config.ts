import { defineConfig } from "vitest/config";
import { textPlugin } from "./vite.config.ts";

export default defineConfig({
  plugins: [textPlugin()],
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    exclude: ["**/node_modules/**", "test/e2e/**"],
    testTimeout: 60_000,
  },
});
