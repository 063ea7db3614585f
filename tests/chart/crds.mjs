// Objects of the Prometheus Operator against its own definitions, as the package of its models has them: values by the
// validators, which pass over keys that they do not know, and keys by TypeScript, which does not.
//
//     node tests/chart/crds.mjs FOLDER <OBJECTS     FOLDER has node_modules; a JSON list of objects on stdin
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const require = createRequire(join(folder, "x.js"));
const objects = JSON.parse(readFileSync(0, "utf8"));
// By its path, since names are looked up from where this file is.
const index = join(folder, "node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index.js");
const models = await import(pathToFileURL(index));

const wrong = [];
const lines = [];
for (const [number, object] of objects.entries()) {
  const Model = models[object.kind];
  if (!Model) throw new Error(`no model of ${object.kind}`);
  try {
    new Model(object).validate();
  } catch (error) {
    wrong.push(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
  lines.push(`import { I${object.kind} as K${number} } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";`);
  lines.push(`export const o${number}: K${number} = ${JSON.stringify(object)};`);
}
// Within the folder, where the compiler finds the packages.
const work = mkdtempSync(join(folder, "objects-"));
try {
  writeFileSync(join(work, "objects.ts"), lines.join("\n"));
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--pretty", "false"];
  execFileSync(process.execPath, [require.resolve("typescript/bin/tsc"), ...options, "objects.ts"], { cwd: work });
} catch (error) {
  wrong.push(String(error.stdout ?? error));
} finally {
  rmSync(work, { recursive: true });
}
if (wrong.length > 0) {
  console.error(wrong.join("\n").slice(0, 4000));
  process.exit(1);
}
