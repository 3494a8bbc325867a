// Makes the report's template, one HTML file that lacks nothing but the results:
//   node bundle.mjs NODE_MODULES OUTPUT
// Everything is resolved from NODE_MODULES, which `npm ci` made from package-lock.json.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const [modules, output] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const esbuild = createRequire(join(modules, "package.json"))("esbuild");

const bundled = (name) => esbuild.buildSync({
  entryPoints: [join(here, "src", name)], bundle: true, minify: true, format: "iife", target: "es2020", write: false,
  nodePaths: [modules], legalComments: "none", charset: "utf8",
}).outputFiles[0].text.trim();

// A script ends at the first "</script", wherever it stands.
const script = bundled("report.js").replaceAll("</script", "<\\/script");
const licence = "/*! Contains Apache ECharts and zrender, Apache-2.0 and BSD-3-Clause, and tslib, 0BSD. */\n";
const page = readFileSync(join(here, "src", "report.html"), "utf8")
  .replace("@@CSS@@", () => bundled("report.css"))
  .replace("@@SCRIPT@@", () => licence + script);
writeFileSync(output, page);
