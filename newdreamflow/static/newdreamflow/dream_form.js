// The form that asks for a dream: what it would cost, now; and that sending it twice is one dream.
// Everything it does is also said or done by the server; without it the form works the same.

const WORK_UNIT = 56 * 512 * 512; // model rows x pixels: 28 steps with guidance at 512x512, as in services.estimated_work_units
const READING = 1.4;
const HIRES_SCALE = 2;

const form = document.getElementById("wish");
const price = document.getElementById("price");
const tooDear = document.getElementById("too-dear");
const shortSides = JSON.parse(form.dataset.shortSides);

function workUnits(values) {
  const rows = Number(values.get("guidance_scale")) > 1 ? 2 : 1;
  const steps = Number(values.get("num_inference_steps"));
  const number = Number(values.get("num_images"));
  if (form.dataset.width) {
    // Over a picture of this size, which has to be read.
    const taken = Math.min(Math.trunc(steps * Number(values.get("strength"))), steps);
    const grown = values.get("expand") && JSON.parse(form.dataset.grown)[values.get("expand")];
    const [width, height] = grown || [form.dataset.width, form.dataset.height];
    return ((rows * taken * number + READING) * width * height) / WORK_UNIT;
  }
  const long = Number(values.get("size"));
  const short = values.get("shape") === "square" ? long : shortSides[long];
  const enlarged = values.get("hires") ? HIRES_SCALE ** 2 * Math.ceil(steps / 2) : 0;
  return (rows * (steps + enlarged) * long * short * number) / WORK_UNIT;
}

function amount(credits) {
  const [whole, places] = (Math.round(credits * 1e4) / 1e4).toFixed(4).split(".");
  return `${Number(whole).toLocaleString("en")}.${places.replace(/0+$/, "").padEnd(2, "0")}`;
}

function showPrice() {
  const credits = workUnits(new FormData(form)) * Number(price.dataset.pricePerWorkUnit);
  price.textContent = Number.isFinite(credits) ? amount(credits) : "–";
  tooDear.hidden = !(credits > Number(price.dataset.left));
}

form.addEventListener("input", showPrice);
showPrice();

// --- sending ---------------------------------------------------------------------------------------------------------

const send = document.getElementById("send");
let isSent = false;

form.addEventListener("submit", (event) => {
  if (isSent) event.preventDefault();
  isSent = true;
  send.setAttribute("aria-disabled", "true");
});

form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(send);
});

addEventListener("pageshow", (event) => {
  const [navigation] = performance.getEntriesByType("navigation");
  if (event.persisted || navigation?.type === "back_forward") form.elements.submission.value = newUuid();
  isSent = false;
  send.removeAttribute("aria-disabled");
  showPrice(); // browsers put back what was chosen before
});

function newUuid() {
  // crypto.randomUUID is not there on plain HTTP.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"))
    .join("")
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// --- writing ---------------------------------------------------------------------------------------------------------

const prompt = form.elements.prompt;

for (const idea of form.querySelectorAll(".ideas a")) {
  idea.addEventListener("click", (event) => {
    event.preventDefault();
    prompt.value = idea.textContent;
    prompt.focus();
  });
}

const wrong = form.querySelector('[aria-invalid="true"]');
if (wrong) wrong.focus();
else if (!prompt.value && matchMedia("(hover: hover)").matches) prompt.focus({ preventScroll: true });
