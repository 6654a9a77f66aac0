// One line: how the server is, how busy it is, and when a picture asked for now would be there.

import { getJson, Unreachable } from "./api.js";
import { about, counted } from "./words.js";

const PARAMS = ["num_inference_steps", "guidance_scale", "height", "width", "num_images"];

const line = document.querySelector("#queue-line");
const hint = document.querySelector("#draw-eta");
let isLoaded = false;

/** Ask anew. Returns whether there is reason to ask again soon. */
export async function refresh(wish) {
  try {
    const query = new URLSearchParams(PARAMS.filter((name) => name in wish).map((name) => [name, wish[name]]));
    const queue = await getJson(`/v1/queue?${query}`);
    const health = isLoaded && queue.accepting ? null : await readHealth();
    isLoaded ||= health.model_loaded;
    const isBusy = queue.running + queue.waiting > 0;
    show(...words(queue, health));
    hint.textContent = queue.eta_s === null ? "" : `done in ${about(queue.eta_s)}`;
    return isBusy || !isLoaded || !queue.accepting;
  } catch (error) {
    hint.textContent = "";
    // A half-typed size is not worth a word here: drawing with it will say so.
    if (error.status === 422) return false;
    if (error instanceof Unreachable) show("failed", "No connection to the server");
    else show("failed", error.detail ?? String(error));
    return true;
  }
}

function words(queue, health) {
  if (health?.status === "loading") return ["loading", "The model is being loaded; what you ask for will wait for it"];
  if (health && health.status !== "healthy") return ["failed", health.reason ?? health.status];
  if (!queue.accepting) return ["failed", `${counted(queue.waiting, "job")} waiting; no more can be taken right now`];
  if (!queue.running && !queue.waiting) return ["idle", "Ready"];
  const waiting = queue.waiting ? `, ${queue.waiting} waiting` : "";
  return ["busy", `${queue.running} being drawn${waiting}`];
}

function show(state, text) {
  line.querySelector(".dot").dataset.state = state;
  line.querySelector(".words").textContent = text;
}

// /health says how it is with status 503, too.
async function readHealth() {
  try {
    const response = await fetch("/health");
    return await response.json();
  } catch {
    throw new Unreachable();
  }
}
