// Painting a mask over a picture: mouse, finger, pen, or arrow keys; undo, invert, clear. Knows nothing of requests.
// The GPU server's page and the site share it; the original is server/static/app/painter.js, and
// `python scripts/copy_shared_files.py` copies it to the site.

const COLOUR = "#e4572e";
const FIRST_DIAMETER = 0.15; // of the shorter side
const LARGEST_DIAMETER = 0.6;
const SAMPLE = 64; // pixels a side on which the marked share is measured

/**
 * Build a painter inside `host`. Tell `changed()` whenever the mask is another one.
 *
 * Returns { show(url), forget(), use(blob), mask() }: a picture to paint on; none; a mask to begin with; and a promise
 * of the mask as a PNG file of the picture's size, white where something is marked, or of null where nothing is.
 */
export function makePainter(host, changed = () => {}) {
  const view = element("div", { className: "painter-view" });
  const picture = element("img", { alt: "" });
  const canvas = element("canvas", { tabIndex: 0, role: "application", ariaLabel: "Mask" });
  const ring = element("i", { className: "painter-ring", hidden: true });
  const size = element("input", { type: "range", min: 1, max: 100, ariaLabel: "Brush size" });
  const tool = (name, act) => element("button", { type: "button", textContent: name, onclick: act });
  const eraser = tool("Erase", () => (eraser.ariaPressed = String(eraser.ariaPressed !== "true")));
  const undoing = tool("Undo", undo);
  const share = element("output", { className: "hint" });
  const hint = element("p", { className: "hint", id: `${host.id}-hint` });
  const brush = element("label", { className: "painter-brush" });
  const tools = element("div", { className: "painter-tools" });
  brush.append("Brush", size);
  tools.append(brush, eraser, undoing, tool("Invert", () => act({ kind: "invert" })), tool("Clear", () => act({ kind: "clear" })));
  hint.append("With the keyboard: arrow keys move the brush, Space paints, Shift with an arrow key draws a line.");
  view.append(picture, canvas, ring);
  host.replaceChildren(view, tools, share, hint);
  host.classList.add("painter");
  eraser.ariaPressed = "false";
  canvas.setAttribute("aria-describedby", hint.id);

  const pen = canvas.getContext("2d");
  const at = { x: 0, y: 0 }; // of the brush, in the picture's pixels
  let acts = []; // everything since the picture came, for undo
  let stroke = null; // the one being painted
  let file = null; // the promise of the mask, until it is another one

  const diameter = () => Math.max(2, (size.value / 100) * LARGEST_DIAMETER * Math.min(canvas.width, canvas.height));

  async function show(url) {
    picture.src = url;
    await picture.decode();
    Object.assign(canvas, { width: picture.naturalWidth, height: picture.naturalHeight });
    view.style.setProperty("--ratio", canvas.width / canvas.height);
    Object.assign(at, { x: canvas.width / 2, y: canvas.height / 2 });
    size.value = (100 * FIRST_DIAMETER) / LARGEST_DIAMETER;
    showSize();
    acts = [];
    repaint();
  }

  function forget() {
    picture.removeAttribute("src");
    Object.assign(canvas, { width: 1, height: 1 });
    acts = [];
    repaint();
  }

  async function use(blob) {
    const marked = element("canvas", { width: canvas.width, height: canvas.height });
    const other = marked.getContext("2d", { willReadFrequently: true });
    other.drawImage(await createImageBitmap(blob), 0, 0, marked.width, marked.height);
    const pixels = other.getImageData(0, 0, marked.width, marked.height);
    for (let each = 0; each < pixels.data.length; each += 4) pixels.data[each + 3] = pixels.data[each];
    other.putImageData(pixels, 0, 0);
    act({ kind: "mask", marked });
  }

  function act(newAct) {
    acts.push(newAct);
    paint(newAct);
    settle();
  }

  function undo() {
    acts.pop();
    repaint();
  }

  function repaint() {
    pen.globalCompositeOperation = "source-over";
    pen.clearRect(0, 0, canvas.width, canvas.height);
    acts.forEach(paint);
    settle();
  }

  /** Say what has come out, and forget what was made of the mask before. */
  function settle() {
    file = null;
    undoing.disabled = acts.length === 0;
    share.textContent = `${markedShare()} % marked`;
    changed();
  }

  function paint({ kind, points, width, erases, marked }) {
    pen.fillStyle = pen.strokeStyle = COLOUR;
    pen.globalCompositeOperation = { invert: "source-out", stroke: erases ? "destination-out" : "source-over" }[kind] ?? "source-over";
    if (kind === "clear" || kind === "mask") pen.clearRect(0, 0, canvas.width, canvas.height);
    if (kind === "invert") pen.fillRect(0, 0, canvas.width, canvas.height);
    if (kind === "mask") {
      pen.drawImage(marked, 0, 0);
      pen.globalCompositeOperation = "source-in";
      pen.fillRect(0, 0, canvas.width, canvas.height);
    }
    if (kind === "stroke") line(points, width);
  }

  function line([first, ...others], width) {
    Object.assign(pen, { lineCap: "round", lineJoin: "round", lineWidth: width });
    pen.beginPath();
    pen.arc(first.x, first.y, width / 2, 0, 2 * Math.PI); // a line of no length would leave nothing
    pen.fill();
    pen.beginPath();
    pen.moveTo(first.x, first.y);
    for (const { x, y } of others) pen.lineTo(x, y);
    pen.stroke();
  }

  function begin() {
    stroke = { kind: "stroke", points: [{ ...at }], width: diameter(), erases: eraser.ariaPressed === "true" };
    paint(stroke);
  }

  function extend() {
    const before = stroke.points.at(-1);
    stroke.points.push({ ...at });
    paint({ ...stroke, points: [before, { ...at }] });
  }

  function end() {
    if (!stroke) return;
    acts.push(stroke);
    stroke = null;
    settle();
  }

  function place({ clientX, clientY }) {
    const box = canvas.getBoundingClientRect();
    at.x = ((clientX - box.left) / box.width) * canvas.width;
    at.y = ((clientY - box.top) / box.height) * canvas.height;
    showRing();
  }

  function showRing() {
    ring.hidden = false;
    ring.style.left = `${(100 * at.x) / canvas.width}%`;
    ring.style.top = `${(100 * at.y) / canvas.height}%`;
    ring.style.width = `${(100 * diameter()) / canvas.width}%`;
  }

  function showSize() {
    size.style.setProperty("--filled", `${size.value}%`);
    if (!ring.hidden) showRing();
  }

  /** Whole percent; more than nothing is never 0. */
  function markedShare() {
    const small = element("canvas", { width: SAMPLE, height: SAMPLE }).getContext("2d", { willReadFrequently: true });
    small.imageSmoothingQuality = "high";
    small.drawImage(canvas, 0, 0, SAMPLE, SAMPLE);
    const { data } = small.getImageData(0, 0, SAMPLE, SAMPLE);
    let sum = 0;
    for (let each = 3; each < data.length; each += 4) sum += data[each];
    const percent = (100 * sum) / (255 * SAMPLE * SAMPLE);
    return percent > 0 ? Math.max(1, Math.round(percent)) : 0;
  }

  async function exported() {
    const copy = element("canvas", { width: canvas.width, height: canvas.height });
    const other = copy.getContext("2d", { willReadFrequently: true });
    other.drawImage(canvas, 0, 0);
    const pixels = other.getImageData(0, 0, copy.width, copy.height);
    const words = new Uint32Array(pixels.data.buffer); // a pixel each, its opacity in the highest byte
    let isMarked = false;
    for (let each = 0; each < words.length; each++) {
      const isWhite = words[each] >>> 24 > 127; // strokes have soft edges; the mask has none
      words[each] = isWhite ? 0xffffffff : 0xff000000;
      isMarked ||= isWhite;
    }
    other.putImageData(pixels, 0, 0);
    return isMarked ? new Promise((resolve) => copy.toBlob(resolve, "image/png")) : null;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    canvas.setPointerCapture(event.pointerId);
    place(event);
    begin();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.isPrimary) return;
    const way = stroke ? event.getCoalescedEvents?.() : [];
    for (const each of way?.length ? way : [event]) {
      place(each);
      if (stroke) extend();
    }
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);
  canvas.addEventListener("pointerleave", () => (ring.hidden = !canvas.matches(":focus-visible")));
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && showRing());
  canvas.addEventListener("blur", () => (ring.hidden = true));
  size.addEventListener("input", showSize);

  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const direction = directions[event.key];
    if (direction) {
      if (event.shiftKey) begin();
      const step = diameter() / 2;
      at.x = Math.min(canvas.width, Math.max(0, at.x + direction[0] * step));
      at.y = Math.min(canvas.height, Math.max(0, at.y + direction[1] * step));
      showRing();
      if (event.shiftKey) extend();
      end();
    } else if (event.key === " ") {
      begin();
      end();
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      if (acts.length) undo();
    } else {
      return;
    }
    event.preventDefault();
  });

  return { show, forget, use, mask: () => (file ??= exported()) };
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
