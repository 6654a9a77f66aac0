// The status in the header: how the server is, how busy it is, and when a picture asked for now would be done.

import { getJson, Unreachable } from "./api.js";
import { about, counted } from "./words.js";

const PARAMS = ["num_inference_steps", "guidance_scale", "height", "width", "num_images"];

const TROUBLES = {
  degraded: ["wait", "Degraded", "The server has a problem."],
  draining: ["wait", "Shutting down", "The server is shutting down."],
  failed: ["failed", "Failed", "The server cannot draw pictures."],
};

const line = document.querySelector("#queue-line");
const hint = document.querySelector("#draw-eta");

/** Ask again. Returns whether to ask again soon, and what is wrong with the server: a title and a detail, or null. */
export async function refresh(wish) {
  try {
    const query = new URLSearchParams(PARAMS.filter((name) => name in wish).map((name) => [name, wish[name]]));
    const [queue, health] = await Promise.all([getJson(`v1/queue?${query}`), readHealth()]);
    show(...status(queue, health));
    hint.textContent = whenDone(queue, health);
    const [, , title] = TROUBLES[health.status] ?? [];
    const isBusy = queue.running + queue.waiting > 0;
    return { isSoon: isBusy || health.status !== "healthy" || !queue.accepting, trouble: title ? { title, detail: health.reason } : null };
  } catch (error) {
    hint.textContent = "";
    // A half-typed size is not worth a word here: drawing with it will say so.
    if (error.status === 422) return { isSoon: false };
    show("failed", error instanceof Unreachable ? "No connection" : (error.title ?? String(error)));
    return { isSoon: true };
  }
}

function status(queue, health) {
  if (health.status === "loading") return ["wait", "Loading the model"];
  if (TROUBLES[health.status]) return TROUBLES[health.status];
  if (!queue.accepting) return ["failed", `The queue is full: ${counted(queue.waiting, "job")} waiting`];
  if (!queue.running && !queue.waiting) return ["idle", "Ready"];
  const waiting = queue.waiting ? `, ${queue.waiting} waiting` : "";
  return ["busy", `${queue.running} drawing${waiting}`];
}

function whenDone(queue, health) {
  if (health.status === "loading") return "starts when the model is loaded";
  return queue.eta_s === null ? "" : `done in ${about(queue.eta_s)}`;
}

function show(state, text) {
  line.querySelector(".dot").dataset.state = state;
  line.querySelector(".words").textContent = text;
}

// /health says how it is with status 503, too.
async function readHealth() {
  try {
    const response = await fetch("health");
    return await response.json();
  } catch {
    throw new Unreachable();
  }
}
