// Dreams of a list that are not finished yet: what is said about them moves, and the picture appears.

const ASK_MS = 2_000;

let waiting = [...document.querySelectorAll(".tile[data-progress]")];
if (waiting.length) setTimeout(look, ASK_MS);

async function look() {
  if (document.visibilityState === "visible") await Promise.allSettled(waiting.map(ask));
  waiting = waiting.filter((tile) => tile.dataset.progress);
  if (waiting.length) setTimeout(look, ASK_MS);
}

async function ask(tile) {
  const response = await fetch(tile.dataset.progress, { headers: { Accept: "application/json" } });
  if (!response.ok) return;
  const snapshot = await response.json();
  const state = tile.querySelector(".state");
  state.textContent = snapshot.words;
  if (!snapshot.is_finished) return;
  delete tile.dataset.progress;
  tile.dataset.status = snapshot.status;
  if (!snapshot.pictures.length) return;
  const image = new Image();
  image.alt = tile.querySelector(".caption").textContent;
  image.src = snapshot.pictures[0].thumbnail;
  await image.decode();
  state.replaceWith(image);
}
