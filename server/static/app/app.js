// What happens when the user draws, chooses a picture, or comes back to an address.

import { Problem, submit } from "./api.js";
import { isOver } from "./follow.js";
import * as form from "./form.js";
import * as input from "./input_picture.js";
import * as apiKey from "./key.js";
import { UPSCALE } from "./paths.js";
import * as queueLine from "./queue_line.js";
import * as recent from "./recent.js";
import * as stage from "./stage.js";
import { titleOf } from "./words.js";

const SOON_MS = 3_000;
const LATER_MS = 20_000;
const ENLARGEMENT = 2;

const part = (id) => document.getElementById(id);
const desktop = matchMedia("(width >= 60rem)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let asking = null; // the AbortController of a request for pictures that has no answer yet
let nextLook = null;
let trouble = null; // what is wrong with the server, as last said

function draw(wish) {
  return ask(async (options) => {
    const files = await input.files();
    if (!files) return notify("Nothing is marked.", "Paint over the part to redraw.");
    const job = await submit(wish, files, options);
    input.remember(job.id, files);
    return job;
  });
}

/** Twice as wide and high, without drawing. */
function enlarge(image, output_format) {
  return ask((options) => submit({ scale: ENLARGEMENT, output_format }, { image }, { ...options, path: UPSCALE }));
}

/** Ask for a job, one at a time, and show it. */
async function ask(forJob) {
  if (asking) return;
  asking = new AbortController();
  part("draw").ariaDisabled = "true";
  hideNotice();
  form.clearErrors();
  try {
    const job = await forJob({ signal: asking.signal, onRetry: () => sayTrying() });
    if (!job) return;
    hideNotice();
    recent.put(job);
    open(job);
    if (!desktop.matches) part("stage").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
  } catch (error) {
    if (asking.signal.aborted) notify("Stopped.", "If the request was accepted, its picture will be among the recent ones.");
    else if (!(error instanceof Problem && form.markErrors(error))) fail(error);
  } finally {
    asking = null;
    part("draw").ariaDisabled = "false";
    part("stop-trying").hidden = true;
    look();
  }
}

function drawFromForm() {
  try {
    draw(form.readWish());
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    form.markErrors(error);
  }
}

function sayTrying() {
  part("stop-trying").hidden = false;
  notify("No connection to the server.", "Trying again. It will be drawn only once.");
}

/** Give the job an address of its own, and show it. */
function open(job) {
  history.pushState(null, "", `#${job.id}`);
  show(job);
}

function show(job) {
  recent.choose(job.id);
  document.title = `${titleOf(job.params).slice(0, 60)} · Semantic Bit`;
  stage.show(job);
}

async function showAddressed() {
  const id = location.hash.slice(1);
  if (!/^[0-9a-f]{16}$/.test(id) || id === stage.shownId()) return;
  try {
    show(await stage.fetchJob(id));
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  if (error.name === "AbortError") return;
  const wait = error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
  notify(error.title ? `${error.title.replace(/\.$/, "")}.` : "Error on this page.", `${error.detail ?? error.message}${wait}`);
}

/** Say once what is wrong with the server; who closes it does not see it again until it was well meanwhile. */
function showTrouble(newer) {
  if (newer?.title === trouble?.title) return;
  trouble = newer;
  if (newer) notify(newer.title, newer.detail);
  else if (part("notice").dataset.about === "server") hideNotice();
  if (newer) part("notice").dataset.about = "server";
}

function notify(title, detail) {
  part("notice").dataset.about = "request";
  part("notice").querySelector(".title").textContent = title;
  part("notice").querySelector(".detail").textContent = detail;
  part("notice").hidden = false;
}

function hideNotice() {
  part("notice").hidden = true;
}

function announce(text) {
  part("announcer").textContent = text;
}

/** Look at the queue, and again soon or later; not at all while this page is hidden. */
async function look() {
  clearTimeout(nextLook);
  nextLook = null;
  if (document.hidden) return;
  const { isSoon, trouble } = await queueLine.refresh(currentWish());
  if (trouble !== undefined) showTrouble(trouble);
  if (isSoon || recent.hasUnfinished()) await recent.refresh().catch(() => {}); // the status has said it
  clearTimeout(nextLook);
  nextLook = setTimeout(look, isSoon ? SOON_MS : LATER_MS);
}

function lookSoon() {
  clearTimeout(nextLook);
  nextLook = setTimeout(look, 400);
}

function currentWish() {
  try {
    return { ...form.readWish(), ...input.grownSize() };
  } catch {
    return {};
  }
}

/** Put a job's settings into the form, and the picture that came with it. Returns whether that is all there. */
async function useAgain(job, request) {
  const isThere = await input.recall(job);
  form.useParams(request);
  if (!isThere) notify("The picture it was drawn over is not here any more.", "Choose it again: the server does not give it back.");
  return isThere;
}

function listen() {
  const wish = part("wish");
  wish.addEventListener("submit", (event) => {
    event.preventDefault();
    drawFromForm();
  });
  wish.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      drawFromForm();
    }
  });
  wish.addEventListener("wish-changed", lookSoon);
  part("stop-trying").addEventListener("click", () => asking?.abort());
  part("notice-close").addEventListener("click", hideNotice);
  part("ideas").addEventListener("click", (event) => {
    if (!event.target.closest("button")) return;
    form.setPrompt(event.target.textContent);
    form.focusPrompt();
  });
  addEventListener("popstate", showAddressed);
  document.addEventListener("visibilitychange", look);
}

async function start() {
  if (/Mac|iPhone|iPad/.test(navigator.userAgent)) part("draw-key").textContent = "⌘";
  part("options").open = desktop.matches;
  apiKey.start();
  stage.start({
    async again(job, request) {
      await useAgain(job, request);
      form.focusPrompt();
      announce("Settings and seed are in the form");
    },
    async another(job, request) {
      if (await useAgain(job, request)) drawFromForm();
    },
    async vary(job, request) {
      if (!(await useAgain(job, request))) return;
      form.vary(request);
      drawFromForm();
    },
    async useAsInput(file) {
      await input.takeOurs(file);
      part("input").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "nearest" });
      part("choose-picture").focus({ preventScroll: true });
    },
    enlarge,
    mayEnlarge: (width, height) => ENLARGEMENT * Math.max(width, height) <= form.limits().max_image_size,
    changed(job) {
      recent.put(job);
      if (isOver(job)) lookSoon();
    },
    failed: fail,
    announce,
  });
  await form.prepare();
  input.start({ failed: notify, announce, useSettings: form.useParams });
  listen();
  look();
  const newest = await recent.start(open, fail);
  if (location.hash) await showAddressed();
  else if (newest) show(newest);
}

start().catch((error) => {
  fail(error);
  // A page that could not begin, begins anew.
  part("wish").addEventListener("submit", (event) => {
    event.preventDefault();
    location.reload();
  });
});
