// The stage: one job, from its place in the queue over its first outlines to the picture and what can be done with it.

import { getJson, pictureFile, postJson, writeJson } from "./api.js";
import { curl, fileName } from "./curl.js";
import { follow, isOver } from "./follow.js";
import * as models from "./models.js";
import { cancelPath, jobPath, picturePath } from "./paths.js";
import { requestOf, sizeOf } from "./request_of.js";
import { about, exactly, fileSize, titleOf } from "./words.js";

const part = (id) => document.getElementById(id);
const stage = part("stage");

let job = null;
let selected = 0; // which of the job's pictures
let watching = new AbortController();
let files = []; // the pictures shown
let urls = []; // theirs
let said = ""; // the last announcement
let tell; // what the page does when something happens here

/** `tell`: again, another, vary (each with a job and a request), useAsInput(file), enlarge(file, format), mayEnlarge(width, height), changed(job), failed(error), announce(text). */
export function start(callbacks) {
  tell = callbacks;
  part("cancel").addEventListener("click", () => cancel().catch(tell.failed));
  const shown = () => requestOf(job, { seed: seedShown(), index: selected });
  part("again").addEventListener("click", () => tell.again(job, shown()));
  part("another").addEventListener("click", () => tell.another(job, { ...shown(), num_images: job.params.num_images, seed: "" }));
  part("vary").addEventListener("click", () => tell.vary(job, shown()));
  part("use-as-input").addEventListener("click", () => tell.useAsInput(files[selected]));
  part("enlarge").addEventListener("click", () => tell.enlarge(files[selected], job.params.output_format));
  part("copy-curl").addEventListener("click", copyCurl);
}

export const shownId = () => job?.id ?? null;

/** Show a job, and stay with it until it is over or another one is shown. */
export async function show(newJob) {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  clear();
  job = newJob;
  renderCaption();
  try {
    await render(signal);
    for await (const newer of follow(job, { signal, onConnection: showConnection })) {
      job = newer;
      tell.changed(job);
      await render(signal);
    }
  } catch (error) {
    if (!signal.aborted) tell.failed(error);
  }
}

async function cancel() {
  part("cancel").disabled = true;
  const { signal } = watching;
  try {
    const newer = await postJson(cancelPath(job.id));
    if (signal.aborted) return; // another job is on the stage by now
    watching.abort();
    tell.changed(newer);
    await show(newer);
  } finally {
    part("cancel").disabled = false;
  }
}

function clear() {
  for (const url of urls) URL.revokeObjectURL(url);
  urls = files = [];
  selected = 0;
  said = "";
  for (const id of ["preview", "picture"]) {
    part(id).hidden = true;
    part(id).removeAttribute("src");
  }
  for (const id of ["strip", "empty", "ended", "actions", "file-actions", "programs", "connection"]) part(id).hidden = true;
  part("strip").replaceChildren();
}

async function render(signal) {
  stage.dataset.state = job.status;
  stage.ariaBusy = String(!isOver(job));
  const [width, height] = sizeOf(job.params);
  stage.style.setProperty("--ratio", width / height);
  part("progress").hidden = isOver(job);
  for (const id of ["actions", "file-actions", "programs"]) part(id).hidden = !isOver(job);
  if (!isOver(job)) {
    renderProgress();
    return;
  }
  part("job-json").textContent = writeJson(job, 2);
  if (job.status === "done" && !job.expired) {
    await renderPictures(signal);
    announce(`The picture is done: ${titleOf(job.params)}${job.prompt_truncated ? `. ${part("caption-truncated").textContent}` : ""}`);
  } else {
    renderEnd();
    renderCaption();
  }
}

function renderProgress() {
  const words = progressWords();
  part("progress-words").textContent = words;
  if (job.step > 0) part("bar").value = job.step / job.steps;
  else part("bar").removeAttribute("value");
  if (job.preview) {
    part("preview").src = job.preview;
    part("preview").hidden = false;
  }
  const quarter = Math.floor((4 * job.step) / job.steps);
  announce(job.status === "queued" ? words : quarter ? `${quarter * 25} percent drawn` : "Drawing has started");
}

function progressWords() {
  const left = job.eta_s === null ? "" : `, ${about(job.eta_s)} left`;
  const again = job.attempt > 1 ? `, attempt ${job.attempt}` : "";
  if (job.status === "running") return job.step ? `Step ${job.step} of ${job.steps}${again}${left}` : `Beginning${again}${left}`;
  if (job.queue_position === null) return "Waiting";
  return (job.queue_position === 0 ? "Next in line" : `${job.queue_position} ahead of it`) + left;
}

async function renderPictures(signal) {
  files = await Promise.all(job.images.map((_, index) => pictureFile(picturePath(job.id, index), { signal })));
  urls = files.map((file) => URL.createObjectURL(file));
  part("picture").alt = titleOf(job.params);
  part("strip").hidden = urls.length < 2;
  part("strip").replaceChildren(...(urls.length < 2 ? [] : urls.map(stripItem)));
  await select(0);
}

function stripItem(url, index) {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.ariaLabel = `Picture ${index + 1} of ${urls.length}, seed ${job.images[index].seed}`;
  button.append(Object.assign(new Image(), { src: url, alt: "" }));
  button.addEventListener("click", () => select(index));
  item.append(button);
  return item;
}

async function select(index) {
  selected = index;
  const picture = part("picture");
  picture.src = urls[index];
  await picture.decode().catch(() => {}); // replaced by another one meanwhile
  if (picture.src !== urls[index]) return;
  picture.hidden = false;
  part("preview").hidden = true;
  part("strip").querySelectorAll("button").forEach((button, each) => (button.ariaPressed = String(each === index)));
  part("download").href = urls[index];
  part("download").download = fileName(job.params, seedShown());
  renderCaption();
}

function renderEnd() {
  const [title, detail] = {
    done: ["Deleted.", "The server keeps pictures for a limited time. The same settings and seed draw it again."],
    cancelled: ["Cancelled.", ""],
    dead: ["Failed after several attempts.", job.error?.detail ?? ""],
    failed: ["Failed.", job.error?.detail ?? ""],
  }[job.status];
  part("ended").querySelector(".title").textContent = title;
  part("ended").querySelector(".detail").textContent = detail;
  part("ended").hidden = false;
  announce(`${title} ${detail}`);
}

function renderCaption() {
  const { params, timings } = job;
  part("caption-prompt").textContent = titleOf(params);
  part("caption-negative").hidden = !params.negative_prompt;
  part("caption-negative").textContent = `Negative prompt: ${params.negative_prompt}`;
  const which = params.negative_prompt ? "The prompt or the negative prompt" : "The prompt";
  part("caption-truncated").textContent = `${which} is too long for this model: its end was cut off and has no effect.`;
  part("caption-truncated").hidden = !job.prompt_truncated;
  const image = job.images[selected];
  part("facts").replaceChildren(
    ...Object.entries({
      ...(!params.upscaler && { Seed: seedShown() }),
      Size: sizeOf(params).join(" × "),
      ...(params.upscaler && { Enlarged: "without drawing, Lanczos" }),
      ...(models.all().length > 1 && !params.upscaler && { Model: job.model }),
      ...(params.image && !params.upscaler && { "Drawn over": overWhat(params), Strength: params.strength }),
      ...(params.variation_strength && { Variation: `${params.variation_strength} towards ${params.variation_seed}` }),
      ...(params.hires && { Enlarged: `from ${params.width} × ${params.height}, ${params.hires.upscaler}` }),
      ...(!params.upscaler && howItWasDrawn(params)),
      ...(image && { File: `${params.output_format.toUpperCase()}, ${fileSize(image.bytes)}` }),
      ...(timings && { Drawn: `in ${exactly(timings.encode_s + timings.denoise_s + timings.decode_s)}` }),
      "Work units": Number(job.work_units.toPrecision(3)),
    }).map(([name, value]) => fact(name, value)),
  );
  part("download").hidden = part("use-as-input").hidden = !image;
  part("enlarge").hidden = !image || !tell.mayEnlarge(...sizeOf(params));
  // Enlarged without drawing, it has no prompt to be drawn again from.
  for (const id of ["again", "another", "vary", "copy-curl", "curl", "curl-title"]) part(id).hidden = params.upscaler !== null;
  part("curl").textContent = curl(job, { seed: seedShown(), index: selected });
  part("caption").hidden = false;
}

const howItWasDrawn = ({ num_inference_steps, guidance_scale, sampler, noise_schedule, eta }) => ({
  Steps: num_inference_steps,
  Guidance: guidance_scale,
  Sampler: `${sampler}, ${noise_schedule}${eta === null ? "" : `, eta ${eta}`}`,
});

function overWhat({ mask, expand }) {
  return mask ? "part of a picture" : expand ? "the edges" : "a picture";
}

function fact(name, value) {
  const pair = document.createElement("div");
  pair.append(
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value }),
  );
  return pair;
}

// While there are no pictures, the first one's seed.
const seedShown = () => job.images[selected]?.seed ?? job.params.seed;

async function copyCurl() {
  try {
    await navigator.clipboard.writeText(part("curl").textContent);
    tell.announce("Copied");
    part("copy-curl").textContent = "Copied";
    setTimeout(() => (part("copy-curl").textContent = "Copy as curl"), 1500);
  } catch {
    // No clipboard outside secure origins: select it, so that the keyboard can.
    part("programs").open = true;
    getSelection().selectAllChildren(part("curl"));
    part("curl").focus();
  }
}

function showConnection(isConnected) {
  part("connection").hidden = isConnected;
}

function announce(text) {
  if (text !== said) tell.announce(text);
  said = text;
}

/** The newest state of a job by its id. */
export const fetchJob = (id) => getJson(jobPath(id));
