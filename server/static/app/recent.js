// Recent pictures: the newest first, page by page; those still being drawn among them.

import { getJson, pictureFile } from "./api.js";
import { isOver } from "./follow.js";
import { JOBS, thumbnailPath } from "./paths.js";
import { titleOf } from "./words.js";

const PAGE = 18;
const SHOWN = ["queued", "running", "done", "failed", "dead"].map((status) => `status=${status}`).join("&");

const list = document.querySelector("#tiles");
const template = document.querySelector("#tile");
const moreButton = document.querySelector("#more");
const tiles = new Map(); // job id -> { job, item, url }
let cursor = null;

/** Load the first page. `onChoose(job)` is called with the job of the tile that was chosen. Returns the newest job. */
export async function start(onChoose, onError) {
  list.addEventListener("click", (event) => {
    const id = event.target.closest("button")?.dataset.id;
    if (id) onChoose(tiles.get(id).job);
  });
  moreButton.addEventListener("click", () => more().catch(onError));
  await more();
  return newest();
}

const jobOf = (item) => tiles.get(item.firstElementChild.dataset.id).job;
const newest = () => (list.firstElementChild ? jobOf(list.firstElementChild) : null);

/** Bring what changed: jobs that went on, jobs that others asked for. */
export async function refresh() {
  const page = await getJson(`${JOBS}?${SHOWN}&limit=${PAGE}`);
  for (const job of page.jobs) put(job);
}

export const hasUnfinished = () => [...tiles.values()].some(({ job }) => !isOver(job));

/** Show a job's newest state, in its place by age. */
export function put(job) {
  if (job.status === "cancelled") return remove(job.id);
  const known = tiles.get(job.id);
  if (known && isOver(known.job)) return; // an older answer that came late
  if (!known) {
    const older = [...list.children].find((item) => jobOf(item).created_at < job.created_at) ?? null;
    list.insertBefore(make(job), older);
  }
  render(job);
}

export function choose(id) {
  for (const [each, { item }] of tiles) item.firstElementChild.ariaCurrent = String(each === id);
}

async function more() {
  const focusFrom = cursor && list.childElementCount;
  const page = await getJson(`${JOBS}?${SHOWN}&limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  for (const job of page.jobs) put(job);
  cursor = page.next_cursor;
  moreButton.hidden = cursor === null;
  if (focusFrom && moreButton.hidden) list.children[focusFrom]?.firstElementChild.focus();
  showEmptiness();
}

function make(job) {
  const item = template.content.cloneNode(true).firstElementChild;
  item.firstElementChild.dataset.id = job.id;
  tiles.set(job.id, { job, item, url: null });
  return item;
}

function render(job) {
  const tile = tiles.get(job.id);
  tile.job = job;
  const button = tile.item.firstElementChild;
  button.dataset.status = job.status;
  button.title = titleOf(job.params);
  button.querySelector("img").alt = titleOf(job.params);
  button.querySelector(".words").textContent = words(job);
  const count = button.querySelector(".count");
  count.textContent = job.params.num_images;
  count.hidden = job.params.num_images === 1;
  if (job.images.length && !tile.url) loadThumbnail(tile).catch(() => {}); // the tile then shows its prompt
  else if (job.preview) showImage(tile, job.preview);
  showEmptiness();
}

function words(job) {
  const title = titleOf(job.params);
  if (job.status === "done") return job.expired ? title : "";
  if (job.status === "queued") return "waiting";
  if (job.status === "running") return `${Math.floor((100 * job.step) / job.steps)} %`;
  return `failed: ${title}`;
}

async function loadThumbnail(tile) {
  tile.url = "loading";
  try {
    tile.url = URL.createObjectURL(await pictureFile(thumbnailPath(tile.job.id)));
    showImage(tile, tile.url);
  } catch (error) {
    tile.url = null;
    tile.item.querySelector(".words").textContent = titleOf(tile.job.params);
    throw error;
  }
}

function showImage({ item }, url) {
  const image = item.querySelector("img");
  image.src = url;
  image.hidden = false;
}

function remove(id) {
  tiles.get(id)?.item.remove();
  tiles.delete(id);
  showEmptiness();
}

function showEmptiness() {
  document.querySelector("#no-tiles").hidden = tiles.size > 0;
}
