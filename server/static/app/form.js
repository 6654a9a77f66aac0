// The form: what may be asked, what is asked, and which field is wrong.

import { getJson, Problem } from "./api.js";
import { storageName } from "./paths.js";

const DRAFT_NAME = storageName("draft");
const SLIDER_ENDS = { num_inference_steps: 60, guidance_scale: 15 }; // the range people use; the number may go beyond
const NUMBERS = ["num_inference_steps", "guidance_scale", "width", "height", "num_images", "eta"];
const TEXTS = ["prompt", "negative_prompt", "seed", "sampler", "noise_schedule", "output_format"];
const SHAPES = { Square: [1, 1], Portrait: [3, 4], Landscape: [4, 3], Wide: [16, 9] };

const form = document.querySelector("#wish");
const fields = form.elements;
const options = document.querySelector("#options");
let info;
let samplers;

/** Ask the server what may be asked, and offer it. */
export async function prepare() {
  const [about, known] = await Promise.all([getJson("./"), getJson("v1/samplers")]);
  info = about;
  samplers = new Map(known.samplers.map((sampler) => [sampler.name, sampler]));
  setLimits();
  offer(fields.sampler, [...samplers.keys()].map((name) => [name, name]));
  offer(fields.output_format, info.output_formats.map((name) => [name, name.toUpperCase()]));
  offerPresets();
  setAll(info.defaults);
  restoreDraft();
  listen();
}

/** The wish as the API has it; what is left empty is left out. Throws Problem where a number is none. */
export function readWish() {
  const shown = [...TEXTS, ...NUMBERS].filter((name) => !fields[name].closest("[hidden]"));
  const unreadable = shown.filter((name) => fields[name].validity.badInput);
  if (unreadable.length) {
    const errors = unreadable.map((field) => ({ field, rule: "must be a number" }));
    throw new Problem({ title: "Not a number", detail: "", status: 422, errors });
  }
  const given = shown.filter((name) => fields[name].value !== "");
  return Object.fromEntries(given.map((name) => [name, NUMBERS.includes(name) ? Number(fields[name].value) : fields[name].value]));
}

/** Put a job's settings into the form. */
export function useParams(params) {
  setAll(params);
  clearErrors();
  changed();
}

export function focusPrompt() {
  fields.prompt.focus();
}

export function setPrompt(text) {
  fields.prompt.value = text;
  changed();
}

/** Say at each wrong field what is wrong with it. Returns whether every error has found its field. */
export function markErrors(problem) {
  clearErrors();
  const isMarked = problem.errors.map(markError);
  form.querySelector("[aria-invalid]")?.focus();
  return isMarked.length > 0 && isMarked.every(Boolean);
}

export function clearErrors() {
  for (const field of form.querySelectorAll("[aria-invalid]")) clearError(field.name);
}

function clearError(name) {
  fields[name].removeAttribute("aria-invalid");
  const line = document.getElementById(`${name}-error`);
  line.hidden = true;
  line.textContent = ""; // it describes the field even while it is hidden
}

function markError({ field: name, rule }) {
  const line = document.getElementById(`${name}-error`);
  if (!line) return false;
  const field = fields[name];
  line.textContent = `${form.querySelector(`label[for="${name}"]`).textContent} ${rule}.`;
  line.hidden = false;
  field.setAttribute("aria-invalid", "true");
  if (options.contains(field)) options.open = true;
  return true;
}

function setLimits() {
  const { limits } = info;
  limit(fields.num_inference_steps, 1, limits.max_num_inference_steps, 1);
  limit(fields.guidance_scale, 0, limits.max_guidance_scale, 0.1);
  limit(fields.width, limits.min_size, limits.max_size, limits.size_multiple);
  limit(fields.height, limits.min_size, limits.max_size, limits.size_multiple);
  limit(fields.num_images, 1, limits.max_num_images, 1);
  for (const slider of form.querySelectorAll("[data-for]")) {
    const { min, max, step } = fields[slider.dataset.for];
    limit(slider, min, Math.min(max, SLIDER_ENDS[slider.dataset.for]), step);
  }
}

const limit = (field, min, max, step) => Object.assign(field, { min, max, step });

function offer(select, choices) {
  select.replaceChildren(...choices.map(([value, label]) => new Option(label, value)));
}

function offerPresets() {
  // About as many pixels as the default has: what the model was trained on, in another shape.
  const { width, height } = info.defaults;
  const side = Math.sqrt(width * height);
  const { min_size: least, size_multiple: finest } = info.limits;
  const multiple = finest * Math.max(1, Math.round(side / 128)); // 32 for 512: round numbers, little distortion
  const rounded = (pixels) => Math.round(pixels / multiple) * multiple;
  const presets = Object.entries(SHAPES).map(([label, [across, down]]) => {
    const unit = Math.max(side / Math.sqrt(across * down), least / Math.min(across, down));
    return { label, across, down, width: rounded(across * unit), height: rounded(down * unit) };
  });
  document.querySelector("#presets").replaceChildren(...presets.map(presetButton));
}

function presetButton({ label, across, down, width, height }) {
  const button = Object.assign(document.createElement("button"), { type: "button", title: `${width} × ${height}` });
  const glyph = document.createElement("i");
  const scale = 1.1 / Math.max(across, down);
  glyph.style.width = `${across * scale}rem`;
  glyph.style.height = `${down * scale}rem`;
  glyph.ariaHidden = "true";
  button.append(glyph, label);
  Object.assign(button.dataset, { width, height });
  button.addEventListener("click", () => {
    fields.width.value = width;
    fields.height.value = height;
    changed();
  });
  return button;
}

function setAll(params) {
  setSampler(params.sampler, params.noise_schedule);
  for (const name of [...TEXTS, ...NUMBERS]) {
    if (name in params && !["sampler", "noise_schedule"].includes(name)) fields[name].value = params[name] ?? "";
  }
  reflect();
}

function setSampler(name, schedule) {
  if (!samplers.has(name)) return;
  fields.sampler.value = name;
  const known = samplers.get(name);
  offer(fields.noise_schedule, [["", "automatic"], ...known.noise_schedules.map((each) => [each, each])]);
  fields.noise_schedule.value = known.noise_schedules.includes(schedule) ? schedule : "";
  fields.eta.placeholder = known.default_eta ?? "";
  document.querySelector("#eta-field").hidden = known.default_eta === null;
}

function listen() {
  form.addEventListener("input", (event) => {
    const name = event.target.name || event.target.dataset.for;
    fields[name].value = event.target.value;
    clearError(name);
    if (event.target === fields.sampler) {
      const schedule = fields.sampler.value === info.defaults.sampler ? info.defaults.noise_schedule : "";
      setSampler(fields.sampler.value, schedule);
    }
    changed();
  });
  document.querySelector("#dice").addEventListener("click", () => {
    fields.seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
    changed();
  });
  document.querySelector("#reset").addEventListener("click", () => {
    useParams({ ...info.defaults, negative_prompt: "", seed: "", eta: "" });
  });
}

function changed() {
  reflect();
  sessionStorage.setItem(DRAFT_NAME, JSON.stringify(Object.fromEntries(new FormData(form))));
  form.dispatchEvent(new CustomEvent("wish-changed"));
}

/** Let sliders, presets and hints show what the fields say. */
function reflect() {
  for (const slider of form.querySelectorAll("[data-for]")) {
    slider.value = fields[slider.dataset.for].value;
    slider.style.setProperty("--filled", `${(100 * (slider.value - slider.min)) / (slider.max - slider.min)}%`);
  }
  for (const button of document.querySelectorAll("#presets button")) {
    const { width, height } = button.dataset;
    button.ariaPressed = String(fields.width.value === width && fields.height.value === height);
  }
  const sampler = samplers.get(fields.sampler.value);
  const calls = sampler.model_calls_formula === "2n - 1" ? "Two model calls a step: half as fast" : "One model call a step";
  const noise = sampler.is_stochastic ? "; fresh noise at each" : "";
  document.querySelector("#sampler-hint").textContent = `${calls}${noise}.`;
}

function restoreDraft() {
  const draft = sessionStorage.getItem(DRAFT_NAME);
  if (draft) setAll(JSON.parse(draft));
}
