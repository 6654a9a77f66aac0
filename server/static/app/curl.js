// A picture as the command that draws it, byte for byte, in any POSIX shell.

import { writeJson } from "./api.js";
import * as apiKey from "./key.js";
import { FOLDER } from "./paths.js";
import { requestOf } from "./request_of.js";

export const fileName = (params, seed) => `semantic-bit-${params.upscaler ? "enlarged" : seed}.${params.output_format === "jpeg" ? "jpg" : params.output_format}`;

/**
 * The command for picture `index` of a job. Pictures that came with it, which the server does not give back, are files
 * of names to be filled in.
 */
export function curl(job, { seed, index }) {
  const { params } = job;
  const json = writeJson(requestOf(job, { seed, index }));
  const body = params.image
    ? [`--form-string request=${quoted(json)}`, "-F image=@picture.png", ...(params.mask ? ["-F mask=@mask.png"] : [])]
    : ["-H 'Content-Type: application/json'", `-d ${quoted(json)}`];
  return [
    `curl --fail-with-body -X POST ${quoted(String(new URL("generate", FOLDER)))}`,
    ...(apiKey.current() ? ['-H "Authorization: Bearer $SEMANTIC_BIT_API_KEY"'] : []), // a command gets copied around
    ...body,
    `--output ${quoted(fileName(params, seed))}`,
  ].join(" \\\n  ");
}

// Between single quotes nothing is special to a shell but the single quote.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
