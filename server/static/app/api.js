// How this page speaks to its server: one wrapper around fetch, problem documents as errors, seeds without loss.

import * as apiKey from "./key.js";
import { JOBS } from "./paths.js";

const PAUSES_MS = [500, 1000, 2000, 4000, 8000];

/** The server refused, with a problem document (RFC 9457). */
export class Problem extends Error {
  constructor({ title, detail, status, code, errors = [], retry_after: retryAfterS = null }) {
    super(detail);
    Object.assign(this, { name: "Problem", title, detail, status, code, errors, retryAfterS });
  }
}

/** No answer: the request may or may not have been accepted. */
export class Unreachable extends Error {
  name = "Unreachable";
  title = "No connection to the server.";
  detail = "It may be restarting. Accepted jobs are not lost.";
}

/** Ask the server, with another key if it wants one. Throws Problem, Unreachable, or an AbortError if `signal` said so. */
export async function request(path, { headers = {}, ...options } = {}) {
  const key = apiKey.current();
  const allHeaders = { Accept: "application/json", ...(key && { Authorization: `Bearer ${key}` }), ...headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers: allHeaders });
  } catch (error) {
    throw options.signal?.aborted ? error : new Unreachable();
  }
  if (response.ok) return response;
  const error = await asError(response);
  if (response.status === 401 && (await apiKey.another(key, error.detail))) return request(path, { headers, ...options });
  throw error;
}

export async function getJson(path, options) {
  const response = await request(path, options);
  try {
    return parseJson(await response.text());
  } catch (error) {
    throw options?.signal?.aborted ? error : new Unreachable(); // cut off in the middle
  }
}

export const postJson = (path) => getJson(path, { method: "POST" });

/** A picture as a file: an <img> could not send the key. */
export async function pictureFile(path, options) {
  const response = await request(path, { ...options, headers: { Accept: "image/*" } });
  return response.blob();
}

let unanswered = null;

/**
 * Ask for pictures. Until an answer has come, the same request keeps its idempotency key, whether this page retries or
 * the user does: the server draws it once. `files` are the pictures that go with it, by the names of their fields.
 */
export async function submit(wish, files, { signal, onRetry, path = JOBS }) {
  apiKey.mayAskAgain();
  const json = writeJson(wish);
  const isSame = unanswered?.path === path && unanswered.json === json && ["image", "mask"].every((name) => unanswered.files[name] === files[name]);
  if (!isSame) unanswered = { path, json, files, key: newKey() };
  const hasFiles = Object.keys(files).length > 0;
  const body = hasFiles ? formOf(json, files) : json;
  const headers = { "Idempotency-Key": unanswered.key, ...(!hasFiles && { "Content-Type": "application/json" }) };
  for (let tries = 1; ; tries++) {
    try {
      const job = await getJson(path, { method: "POST", headers, body, signal });
      unanswered = null;
      return job;
    } catch (error) {
      if (error instanceof Problem && error.status < 500) unanswered = null;
      if (!(error instanceof Unreachable) || tries === 12) throw error;
      onRetry();
      await pause(tries, signal);
    }
  }
}

function formOf(json, files) {
  const form = new FormData();
  form.append("request", new Blob([json], { type: "application/json" }));
  for (const [name, file] of Object.entries(files)) form.append(name, file, name);
  return form;
}

/** Wait before the next try, longer each time, and never in step with other pages. */
export function pause(tries, signal) {
  const milliseconds = PAUSES_MS[Math.min(tries, PAUSES_MS.length) - 1] * (0.75 + Math.random() / 2);
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", stop), resolve()), milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

// A seed may be any whole number below 2^63, and a JavaScript number is exact only below 2^53: here seeds are strings of
// digits. The patterns cannot match inside a string of the document, where every quotation mark has its backslash.
export const parseJson = (text) => JSON.parse(text.replace(/"((?:variation_)?seed)":\s*(\d+)/g, '"$1":"$2"'));
export const writeJson = (value, indent) =>
  JSON.stringify(value, null, indent).replace(/"((?:variation_)?seed)":(\s*)"(\d+)"/g, '"$1":$2$3');

// crypto.randomUUID exists on secure origins only; a server on the local network may have none.
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

async function asError(response) {
  if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    const problem = await response.json();
    return problem.code === "proxy_error" ? new Unreachable() : new Problem(problem); // deploy/Caddyfile says it so
  }
  // Another proxy that cannot reach the server; the request may have come through before.
  if ([502, 503, 504].includes(response.status)) return new Unreachable();
  const detail = `${response.status} ${response.statusText}`.trim();
  return new Problem({ title: "The server could not answer.", detail, status: response.status, code: "http_error" });
}
