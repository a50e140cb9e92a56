// Bundles the page: `npm ci && node build.mjs` writes bundle/, which write_page copies.
import { cp, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const [made, bundle] = [join(here, ".bundle.tmp"), join(here, "bundle")];

await rm(made, { recursive: true, force: true });
await mkdir(join(made, "wasm"), { recursive: true });
await build({
  entryPoints: [join(here, "src/app.js")],
  outfile: join(made, "app.js"),
  bundle: true,
  // A classic script runs from file:// too, where it can say that it needs a server.
  format: "iife",
  target: "es2022",
  minify: true,
  charset: "utf8",
  legalComments: "eof",
});
for (const name of ["index.html", "style.css", "icon.svg"]) {
  await cp(join(here, "src", name), join(made, name));
}
// The second is for browsers without relaxed SIMD; LiteRT.js chooses.
for (const name of ["litert_wasm_internal", "litert_wasm_compat_internal"]) {
  for (const kind of ["js", "wasm"]) {
    const file = `${name}.${kind}`;
    await cp(join(here, "node_modules/@litertjs/core/wasm", file), join(made, "wasm", file));
  }
}
const { version } = JSON.parse(
  await readFile(join(here, "node_modules/@litertjs/core/package.json"), "utf8"),
);
const licence = await readFile(join(here, "../../../LICENSE"), "utf8");
const owner = `app.js and wasm/ hold LiteRT.js ${version}, Copyright Google LLC. It and this page:`;
await writeFile(join(made, "licence.txt"), `${owner}\n${licence}`);
await rm(bundle, { recursive: true, force: true });
await rename(made, bundle);
