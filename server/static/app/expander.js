// How far the picture grows at each side: handles to drag, and number fields that say and take the same.

const SIDES = ["left", "top", "right", "bottom"];
const MARGIN = 0.14; // of the longer side: room around the picture to drag into

const box = document.querySelector("#expander");
const picture = box.querySelector("img");
const paper = box.querySelector(".paper");
const fields = Object.fromEntries(SIDES.map((side) => [side, document.querySelector(`[name="expand.${side}"]`)]));

let size = { width: 1, height: 1 }; // of the picture as the server takes it, in pixels
let view = null; // what is to be seen, in pixels from the picture's corner
let limits = { multiple: 8, most: 2048 };
let changed;

/** `onChange()` is called when a side has another length. */
export function start(onChange, { size_multiple: multiple, max_size: most }) {
  changed = onChange;
  limits = { multiple, most };
  for (const side of SIDES) {
    Object.assign(fields[side], { min: 0, max: most, step: multiple, value: 0 });
    box.querySelector(`[data-side="${side}"]`).addEventListener("pointerdown", (event) => drag(event, side));
  }
}

export function show(url, width, height) {
  picture.src = url;
  size = { width, height };
  render();
}

/** Width and height of what comes out, in pixels. */
export function grown() {
  const { left, top, right, bottom } = lengths();
  return { width: size.width + left + right, height: size.height + top + bottom };
}

/** Let the drawing show what the fields say. */
export function render() {
  const { left, top, right, bottom } = lengths();
  const margin = MARGIN * Math.max(size.width + left + right, size.height + top + bottom);
  view = {
    x: -left - margin,
    y: -top - margin,
    width: size.width + left + right + 2 * margin,
    height: size.height + top + bottom + 2 * margin,
  };
  box.style.setProperty("--ratio", view.width / view.height);
  renderWithin();
}

function renderWithin() {
  const { left, top } = lengths();
  place(picture, 0, 0, size.width, size.height);
  place(paper, -left, -top, grown().width, grown().height);
}

function place(element, x, y, width, height) {
  element.style.left = `${(100 * (x - view.x)) / view.width}%`;
  element.style.top = `${(100 * (y - view.y)) / view.height}%`;
  element.style.width = `${(100 * width) / view.width}%`;
  element.style.height = `${(100 * height) / view.height}%`;
}

const lengths = () => Object.fromEntries(SIDES.map((side) => [side, Math.max(0, Number(fields[side].value) || 0)]));

function drag(event, side) {
  if (event.button !== 0 || !event.isPrimary) return;
  const handle = event.target;
  handle.setPointerCapture(event.pointerId);
  event.preventDefault();
  const isAcross = side === "left" || side === "right";
  const outwards = side === "left" || side === "top" ? -1 : 1;
  const where = (each) => outwards * (isAcross ? each.clientX : each.clientY);
  // The drawing keeps its scale until the handle is let go, or it would run away from the finger.
  const pixels = view.width / box.clientWidth;
  const began = { where: where(event), length: lengths()[side] };
  const move = (each) => {
    const most = limits.most - (isAcross ? grown().width : grown().height) + lengths()[side];
    const length = began.length + (where(each) - began.where) * pixels;
    const rounded = Math.round(length / limits.multiple) * limits.multiple;
    fields[side].value = Math.max(0, Math.min(rounded, Math.floor(most / limits.multiple) * limits.multiple));
    renderWithin();
  };
  const end = () => {
    handle.removeEventListener("pointermove", move);
    render();
    changed();
  };
  handle.addEventListener("pointermove", move);
  handle.addEventListener("lostpointercapture", end, { once: true });
}
