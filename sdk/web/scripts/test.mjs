// Runs one of the suites, `unit` or `browser`: bundles its TypeScript, then hands it to Node's test
// runner.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const suite = process.argv[2];
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const tests = readdirSync(`test/${suite}`).filter((name) => name.endsWith(".test.ts"));
if (!tests.length) throw new Error(`there are no tests in test/${suite}`);
rmSync(`build/${suite}`, { recursive: true, force: true });
await build({
  entryPoints: tests.map((name) => `test/${suite}/${name}`),
  outdir: `build/${suite}`,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  packages: "external",
  platform: "node",
  format: "esm",
  target: "node20",
  sourcemap: "inline",
});
const files = tests.map((name) => `build/${suite}/${name.replace(/\.ts$/, ".mjs")}`);
const flags = ["--enable-source-maps", "--test", "--test-concurrency=1", ...process.argv.slice(3)];
const { status } = spawnSync(process.execPath, [...flags, ...files], { stdio: "inherit" });
process.exitCode = status ?? 1;
