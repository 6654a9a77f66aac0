// A picture as the command that draws it, byte for byte, in any POSIX shell.

import { writeJson } from "./api.js";
import * as apiKey from "./key.js";
import { FOLDER } from "./paths.js";

export const fileName = (params, seed) => `semantic-bit-${seed}.${params.output_format === "jpeg" ? "jpg" : params.output_format}`;

/** What draws the picture with this seed alone, which is the same as in company. */
export function wishOf(params, seed) {
  const wish = Object.entries({ ...params, seed, num_images: 1 }).filter(([, value]) => value !== null && value !== "");
  return Object.fromEntries(wish);
}

export function curl(params, seed) {
  return [
    `curl --fail-with-body -X POST ${quoted(String(new URL("generate", FOLDER)))}`,
    "-H 'Content-Type: application/json'",
    ...(apiKey.current() ? ['-H "Authorization: Bearer $SEMANTIC_BIT_API_KEY"'] : []), // a command gets copied around
    `-d ${quoted(writeJson(wishOf(params, seed)))}`,
    `--output ${quoted(fileName(params, seed))}`,
  ].join(" \\\n  ");
}

// Between single quotes nothing is special to a shell but the single quote.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
