// The picture to start from: how it comes in, which part of it is drawn anew, and the files that go with the request.

import * as expander from "./expander.js";
import * as form from "./form.js";
import { makePainter } from "./painter.js";
import { readSettings } from "./picture_settings.js";

const SENT_AS_THEY_ARE = ["image/png", "image/jpeg", "image/webp"];
const MOST_BYTES = 16 * 2 ** 20;
const STRENGTHS = { all: 0.6, part: 0.75, beyond: 1 };
const MOST_REMEMBERED = 30;

const part = (id) => document.getElementById(id);
const modes = part("wish").elements.mode;

let painter;
let tell;
let given = null; // { file, url, width, height }
const remembered = new Map(); // job id -> what came with it: the server does not give pictures back

/** `callbacks`: failed(title, detail), announce(text), useSettings(request). */
export function start(callbacks) {
  tell = callbacks;
  painter = makePainter(part("painter"));
  expander.start(() => form.setValues({}), form.limits());
  part("choose-picture").addEventListener("click", () => part("picture-file").click());
  part("picture-file").addEventListener("change", ({ target }) => {
    if (target.files[0]) take(target.files[0]);
    target.value = ""; // so that the same file may be chosen again
  });
  part("remove-picture").addEventListener("click", remove);
  for (const radio of modes) radio.addEventListener("change", showMode);
  part("wish").addEventListener("wish-changed", () => given && mode() === "beyond" && showGrown());
  takeDropsAndPastes();
  modes.value = "all";
  remove({ isQuiet: true });
}

/** Take a picture file: show it, and say what settings are in it. */
export async function take(file) {
  try {
    await show(await fitting(file));
    tell.announce("The picture is in the form");
  } catch {
    tell.failed("This file cannot be read as a picture.", "PNG, JPEG and WebP can always be read.");
    return;
  }
  const shown = given;
  const found = await readSettings(file);
  if (found && given === shown) offerSettings(found);
}

/** Take a picture that this page shows anyway, and its settings with it. */
export async function takeOurs(file) {
  await show(file);
  tell.announce("The picture is in the form");
}

/** The files of the request: none, the picture, or picture and mask. Null where a mask is wanted and nothing is marked. */
export async function files() {
  if (!given) return {};
  if (mode() !== "part") return { image: given.file };
  const mask = await painter.mask();
  return mask && { image: given.file, mask };
}

/** Width and height of what comes out where the picture grows; the form says it otherwise. */
export const grownSize = () => (given && mode() === "beyond" ? expander.grown() : {});

/** Keep what came with a job, to ask for it again. */
export function remember(jobId, { image, mask }) {
  if (!image) return;
  remembered.set(jobId, { image, mask });
  if (remembered.size > MOST_REMEMBERED) remembered.delete(remembered.keys().next().value);
}

/** Put what came with a job into the form. Returns whether that could be done. */
export async function recall({ id, params }) {
  if (!params.image) {
    remove({ isQuiet: true });
    return true;
  }
  const { image, mask } = remembered.get(id) ?? {};
  if (!image) return false;
  await show(image, mask ? "part" : params.expand ? "beyond" : "all");
  if (mask) await painter.use(mask);
  return true;
}

const mode = () => modes.value;

async function show(file, newMode = mode()) {
  const url = URL.createObjectURL(file);
  try {
    part("given").src = url;
    await part("given").decode();
    await painter.show(url);
  } catch (error) {
    URL.revokeObjectURL(url);
    remove({ isQuiet: true });
    throw error;
  }
  if (given) URL.revokeObjectURL(given.url);
  given = { file, url, width: part("given").naturalWidth, height: part("given").naturalHeight };
  part("found-settings").hidden = true;
  form.fitSize(given.width, given.height);
  // Where it is drawn at another size, the rest of the picture can only stay as it is if the part alone is drawn.
  const isSameSize = Number(form.valueOf("width")) === given.width && Number(form.valueOf("height")) === given.height;
  form.setValues({ mask_area: isSameSize ? "whole" : "masked" });
  const { size_multiple: multiple } = form.limits();
  const rounded = (pixels) => Math.floor(pixels / multiple) * multiple;
  expander.show(url, rounded(given.width), rounded(given.height));
  modes.value = newMode;
  showMode();
}

function showMode() {
  const usual = Object.values(STRENGTHS).includes(Number(form.valueOf("strength")));
  if (usual) form.setValues({ strength: STRENGTHS[mode()] });
  const [isPart, isBeyond] = [mode() === "part", mode() === "beyond"];
  form.showParts({
    chosen: true,
    given: mode() === "all",
    painter: isPart,
    beyond: isBeyond,
    "mask-options": isPart,
    "mask_blur-field": isPart || isBeyond,
    "resize-field": mode() === "all",
    "size-field": !isBeyond,
  });
  part("choose-picture").textContent = "Choose another picture …";
}

function showGrown() {
  expander.render();
  const { width, height } = expander.grown();
  part("grown-size").textContent = `Comes out at ${width} × ${height} pixels.`;
}

function remove({ isQuiet = false } = {}) {
  if (given) URL.revokeObjectURL(given.url);
  given = null;
  painter.forget();
  part("given").removeAttribute("src");
  form.showParts({ chosen: false, "size-field": true });
  part("choose-picture").textContent = "Start from a picture …";
  if (!isQuiet) part("choose-picture").focus();
}

function offerSettings({ request, unknown }) {
  part("found-prompt").textContent = request.prompt;
  const names = Object.keys(unknown);
  part("found-unknown").textContent = names.length ? `Not known here: ${names.join(", ")}.` : "";
  part("found-settings").hidden = false;
  part("use-settings").onclick = () => tell.useSettings(request);
}

/** The file as it is if the server takes it; else drawn anew, not larger than the server takes. */
async function fitting(file) {
  const bitmap = await createImageBitmap(file);
  const most = form.limits().max_image_size;
  const scale = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  if (SENT_AS_THEY_ARE.includes(file.type) && scale === 1 && file.size <= MOST_BYTES) return file;
  const canvas = Object.assign(document.createElement("canvas"), {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // where it is transparent, as the server has it
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
}

function takeDropsAndPastes() {
  const isOfFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (isOver) => part("input").classList.toggle("is-over", isOver);
  const firstPicture = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
  addEventListener("dragover", (event) => {
    if (!isOfFiles(event)) return;
    event.preventDefault();
    mark(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? mark(false));
  addEventListener("drop", (event) => {
    if (!isOfFiles(event)) return;
    event.preventDefault(); // or the browser would leave this page for the file
    mark(false);
    const file = firstPicture(event.dataTransfer);
    if (file) take(file);
    else tell.failed("This is not a picture.", "A PNG, JPEG or WebP file can be dropped here.");
  });
  addEventListener("paste", (event) => {
    const file = firstPicture(event.clipboardData);
    if (!file) return; // text goes where the cursor is
    event.preventDefault();
    take(file);
  });
}
