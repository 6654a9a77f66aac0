// The settings that a picture file brings with it, as a request. Where the server cannot read them, there are none.

import { getJson } from "./api.js";

/** Returns { request, unknown }, or null where there is nothing to be read. */
export async function readSettings(file) {
  try {
    const found = await getJson("v1/image-info", { method: "POST", headers: { "Content-Type": file.type }, body: file });
    return found.request?.prompt ? { request: found.request, unknown: found.unknown ?? {} } : null;
  } catch {
    return null; // the picture itself can be used all the same
  }
}
