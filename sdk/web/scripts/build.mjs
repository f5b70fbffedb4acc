// Builds the published form: one minified ES module and its types. Fails if the module is too
// large.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const MAX_GZIP_BYTES = 6 * 1024;

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
const { outputFiles } = await build({
  entryPoints: ["src/index.ts"],
  outfile: "dist/index.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2020",
  charset: "utf8",
  write: false,
});
const [{ contents, path }] = outputFiles;
const gzipped = gzipSync(contents, { level: 9 }).length;
console.log(`dist/index.js: ${contents.length} bytes, ${gzipped} bytes gzip (at most ${MAX_GZIP_BYTES})`);
if (gzipped > MAX_GZIP_BYTES) throw new Error("the library is too large");

mkdirSync("dist");
writeFileSync(path, contents);
execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"], { stdio: "inherit" });
