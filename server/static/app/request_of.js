// A job's settings as the request that asks for the same: what the job lists as records, the request has as fields.

import * as models from "./models.js";

/** The request that draws picture `index` of a job alone; pictures that came with the job are not in it. */
export function requestOf({ params, model }, { seed = params.seed, index = 0 } = {}) {
  const { image, strength, resize, mask, expand, variation_seed, variation_strength, hires, upscaler, chosen_texts, ...request } = params;
  Object.assign(request, { model: models.nameFor(model), seed, num_images: 1 });
  if (image) Object.assign(request, { strength, resize });
  if (mask) {
    const { blur, area, padding, content, invert } = mask;
    Object.assign(request, { mask_blur: blur, mask_area: area, mask_padding: padding, masked_content: content });
    if (invert) request.mask_invert = true;
  }
  if (expand) {
    const { blur, ...sides } = expand;
    Object.assign(request, { expand: sides, mask_blur: blur });
  }
  // With a variation all pictures have the same seed, and each the next variation seed.
  if (variation_strength) {
    Object.assign(request, { variation_strength, variation_seed: String(BigInt(variation_seed) + BigInt(index)) });
  }
  if (hires) request.hires = withoutEmpty(hires);
  // What was chosen once is not chosen again: wildcards may have changed since.
  if (chosen_texts) {
    const { hires_prompt, hires_negative_prompt, ...texts } = chosen_texts[index];
    Object.assign(request, texts, { prompt_syntax: "weighted" });
    if (hires) request.hires = withoutEmpty({ ...hires, prompt: hires_prompt, negative_prompt: hires_negative_prompt });
  }
  return withoutEmpty(request);
}

/** [width, height] of the finished pictures, in pixels. */
export function sizeOf({ width, height, mask, hires }) {
  if (mask?.area === "masked") return [mask.image.width, mask.image.height];
  return [hires?.width ?? width, hires?.height ?? height];
}

const withoutEmpty = (record) => Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null && value !== ""));
