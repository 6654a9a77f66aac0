// The form: what may be asked, what is asked, and which field is wrong.

import { getJson, Problem } from "./api.js";
import * as models from "./models.js";
import { storageName } from "./paths.js";

const DRAFT_NAME = storageName("draft");
const SLIDER_ENDS = { num_inference_steps: 60, guidance_scale: 15, strength: 1, variation_strength: 1 }; // the range people use
const NUMBERS = [
  ...["num_inference_steps", "guidance_scale", "width", "height", "num_images", "eta", "strength", "mask_blur", "mask_padding"],
  ...["expand.left", "expand.top", "expand.right", "expand.bottom", "variation_strength", "hires.scale", "hires.steps", "hires.strength"],
];
const TEXTS = [
  ...["prompt", "negative_prompt", "model", "seed", "sampler", "noise_schedule", "output_format", "resize", "mask_area", "masked_content"],
  ...["variation_seed", "hires.upscaler"],
];
const NAMES = { image: "The picture", mask: "The mask", "hires.width": "The enlarged width", "hires.height": "The enlarged height" };
const FIRST_VARIATION = 0.2;
const SHAPES = { Square: [1, 1], Portrait: [3, 4], Landscape: [4, 3], Wide: [16, 9] };

const form = document.querySelector("#wish");
const fields = form.elements;
const options = document.querySelector("#options");
let info;
let samplers;

/** Ask the server what may be asked, and offer it. */
export async function prepare() {
  const [about, known] = await Promise.all([getJson("./"), getJson("v1/samplers")]);
  await models.prepare(); // not first: that a key is missing is said there in OpenAI's words
  info = about;
  samplers = new Map(known.samplers.map((sampler) => [sampler.name, sampler]));
  offer(fields.model, models.all().map(({ id }) => [models.nameFor(id), id]));
  document.querySelector("#model-field").hidden = models.all().length < 2;
  offer(fields.sampler, [...samplers.keys()].map((name) => [name, name]));
  offer(fields.output_format, info.output_formats.map((name) => [name, name.toUpperCase()]));
  chooseModel("");
  setAll(info.defaults);
  restoreDraft();
  listen();
}

/** The wish as the API has it; what is empty or hidden is left out. Throws Problem where a number is none. */
export function readWish() {
  const shown = [...TEXTS, ...NUMBERS].filter((name) => !fields[name].closest("[hidden]"));
  const unreadable = shown.filter((name) => fields[name].validity.badInput);
  if (unreadable.length) {
    const errors = unreadable.map((field) => ({ field, rule: "must be a number" }));
    throw new Problem({ title: "Not a number", detail: "", status: 422, errors });
  }
  const given = shown.filter((name) => fields[name].value !== "");
  const wish = nested(given.map((name) => [name, NUMBERS.includes(name) ? Number(fields[name].value) : fields[name].value]));
  if (!wish.variation_strength) delete wish.variation_strength;
  else wish.variation_seed ??= String(anySeed());
  return wish;
}

/** What the server allows. */
export const limits = () => info.limits;

/** Show other parts of the form, as another picture to start from or another part of it needs them. */
export function showParts(shown) {
  for (const [id, isShown] of Object.entries(shown)) document.getElementById(id).hidden = !isShown;
  document.querySelector("#hires").hidden = shown.chosen;
  changed();
}

/** Draw at about this size: as it is if the model can, else in its shape with about as many pixels as are usual. */
export function fitSize(width, height) {
  const { max_size: most, min_size: least, size_multiple: multiple } = info.limits;
  const usual = Math.sqrt((info.defaults.width * info.defaults.height) / (width * height));
  const isUsual = usual > 0.5 && usual < 2 && Math.max(width, height) <= most && Math.min(width, height) >= least;
  const scale = isUsual ? 1 : usual;
  const fitted = (pixels) => Math.min(most, Math.max(least, Math.floor((pixels * scale) / multiple) * multiple));
  setValues({ width: fitted(width), height: fitted(height) });
}

/** Put values into fields as if they had been typed. */
export function setValues(values) {
  for (const [name, value] of Object.entries(values)) fields[name].value = value;
  changed();
}

export const valueOf = (name) => fields[name].value;

/** The same settings a little differently: the same seed, turned towards another one. */
export function vary(request) {
  const strength = request.variation_strength || Number(fields.variation_strength.value) || FIRST_VARIATION;
  useParams({ ...request, variation_strength: strength, variation_seed: anySeed() });
}

/** Put a request's settings into the form. */
export function useParams(request) {
  const { hires, width } = request;
  chooseModel(models.nameFor(request.model));
  const scale = hires?.width ? { "hires.scale": hires.width / width } : {};
  setAll({ variation_strength: "", variation_seed: "", "hires.steps": "", "hires.strength": "", ...flat(request), ...scale, model: fields.model.value });
  fields["hires-switch"].checked = Boolean(request.hires);
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
  for (const line of form.querySelectorAll(".error")) Object.assign(line, { hidden: true, textContent: "" });
}

function clearError(name) {
  fields[name].removeAttribute("aria-invalid");
  const line = document.getElementById(`${name}-error`);
  line.hidden = true;
  line.textContent = ""; // it describes the field even while it is hidden
}

function markError({ field: name, rule }) {
  const line = document.getElementById(`${name}-error`);
  if (!line || line.closest("[hidden]:not(.error)")) return false;
  const field = fields[name];
  line.textContent = `${form.querySelector(`label[for="${name}"]`)?.textContent ?? NAMES[name] ?? name} ${rule}.`;
  line.hidden = false;
  if (!field) return true;
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
  limit(fields["hires.steps"], 1, limits.max_num_inference_steps, 1);
  limit(fields.mask_blur, 0, limits.max_mask_blur, 1);
  limit(fields.mask_padding, 0, limits.max_mask_padding, 1);
  for (const slider of form.querySelectorAll("[data-for]")) {
    const { min, max, step } = fields[slider.dataset.for];
    limit(slider, min, Math.min(max, SLIDER_ENDS[slider.dataset.for]), step);
  }
}

/** Let limits, presets and defaults be those of a model; what is in the form stays. */
function chooseModel(name) {
  const { size_multiple, width, height, num_inference_steps, guidance_scale, sampler, noise_schedule } = models.find(name);
  fields.model.value = name;
  info.limits = { ...info.limits, size_multiple };
  info.defaults = { ...info.defaults, width, height, num_inference_steps, guidance_scale, sampler, noise_schedule };
  setLimits();
  offerPresets();
}

/** Begin with the model's own defaults; a picture to start from keeps its size. */
function changeModel() {
  chooseModel(fields.model.value);
  const { width, height, ...others } = info.defaults;
  setAll(document.querySelector("#chosen").hidden ? info.defaults : others);
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
    if (![...NUMBERS, ...TEXTS].includes(name)) return changed(); // switches, which name nothing of the wish
    fields[name].value = event.target.value;
    clearError(name);
    if (event.target === fields.model) changeModel();
    if (event.target === fields.sampler) {
      const schedule = fields.sampler.value === info.defaults.sampler ? info.defaults.noise_schedule : "";
      setSampler(fields.sampler.value, schedule);
    }
    changed();
  });
  document.querySelector("#dice").addEventListener("click", () => {
    fields.seed.value = anySeed();
    changed();
  });
  document.querySelector("#reset").addEventListener("click", () => {
    useParams({ ...info.defaults, model: fields.model.value, negative_prompt: "", seed: "", eta: "", hires: null });
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
    slider.value = fields[slider.dataset.for].value || slider.min;
    slider.style.setProperty("--filled", `${(100 * (slider.value - slider.min)) / (slider.max - slider.min)}%`);
  }
  for (const button of document.querySelectorAll("#presets button")) {
    const { width, height } = button.dataset;
    button.ariaPressed = String(fields.width.value === width && fields.height.value === height);
  }
  document.querySelector("#variation_seed-field").hidden = !Number(fields.variation_strength.value);
  document.querySelector("#mask_padding-field").hidden = fields.mask_area.value !== "masked";
  document.querySelector("#hires-fields").hidden = !fields["hires-switch"].checked;
  const enlarged = ["width", "height"].map((name) => rounded(fields[name].value * fields["hires.scale"].value));
  document.querySelector("#hires-size").textContent = `Comes out at ${enlarged.join(" × ")} pixels.`;
  const sampler = samplers.get(fields.sampler.value);
  const calls =
    { "2n - 1": "Two model calls a step: half as fast", "3n - 3": "Three model calls a step: a third as fast" }[
      sampler.model_calls_formula
    ] ?? "One model call a step";
  const noise = sampler.is_stochastic ? "; fresh noise at each" : "";
  document.querySelector("#sampler-hint").textContent = `${calls}${noise}.`;
}

const rounded = (pixels) => Math.floor(pixels / info.limits.size_multiple) * info.limits.size_multiple;

const anySeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** `a.b` becomes a field of a record. */
function nested(pairs) {
  const record = {};
  for (const [name, value] of pairs) {
    const [outer, inner] = name.split(".");
    if (inner === undefined) record[outer] = value;
    else (record[outer] ??= {})[inner] = value;
  }
  return record;
}

/** And back. */
function flat(record) {
  const fields = Object.entries(record).flatMap(([name, value]) =>
    value !== null && typeof value === "object" ? Object.entries(value).map(([inner, each]) => [`${name}.${inner}`, each]) : [[name, value]],
  );
  return Object.fromEntries(fields);
}

function restoreDraft() {
  const draft = sessionStorage.getItem(DRAFT_NAME);
  if (!draft) return;
  const values = JSON.parse(draft);
  fields["hires-switch"].checked = "hires-switch" in values;
  chooseModel(models.nameFor(values.model));
  setAll({ ...values, model: fields.model.value });
}
