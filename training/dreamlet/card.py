"""Writes the model card from the figures of an evaluation.

`python -m training.dreamlet.card --figures FILE --recipe TEXT --out models/dreamlet/README.md`
"""

import argparse
from pathlib import Path

from training.dreamlet.figures import GOALS, Figures
from training.dreamlet.vocabulary import COLOURS, PLACES, STYLE_WORDS, SUBJECTS, TIMES

CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# dreamlet

A small text-to-image latent diffusion model in the layout of Stable Diffusion 1.x. It draws simple scenes in a flat,
friendly style, in seconds, on a CPU, so that a fresh copy of this project draws real pictures without a download. It
does not compete with models trained on photographs.

![24 prompts, default settings, seed 7](../../docs/images/dreamlet.png)

## Use

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("models/dreamlet")
pipeline("a cat on a mat, digital art", num_inference_steps=28, guidance_scale=7.0).images[0].save("cat.png")
```

Native size 256x256; a side is a multiple of 16 pixels. Sampler: DPM-Solver++ 2M with Karras sigmas.

## Vocabulary


* Subjects: {subjects}.
* Colours: {colours}.
* Places: {places}.
* Times and weathers: {times}.
* Styles: {styles}.
* Two subjects side by side, left and right, small and big; landscapes without a subject; common synonyms.
* Places and weather also work in a negative prompt: "snow" removes snow.

## Evaluation


{table}

The judge is a small classifier trained on drawings only, never on generated pictures. The captions have combinations
of subject, colour and place that were held out of training. {verdict}

## Networks

| part | parameters |
|---|---|
{networks}

Latents of 16 channels, 16 pixels wide; v prediction, `scaled_linear` betas 0.00085 to 0.012, 77 tokens, byte-level
vocabulary, so any text is valid.

## Data and recipe

Every training picture was drawn by the program in `training/dreamlet/drawing` together with a caption from
`training/dreamlet/captions.py`: no photographs, and no pictures or texts by others, were used; nothing was
downloaded.

{recipe}

`make train-dreamlet` trains it again or continues its training; `make evaluate-dreamlet` evaluates it. See
`training/dreamlet/README.md`.

## Limits

* It does not understand words that are not in the list above.
* Three or more things, counting, text in the picture, and actions ("a cat jumping") do not work.
* Small subjects lose detail, because a latent is sixteen pixels wide.
* Its training data has no people, brands or unsafe content, so there is no safety checker.

## Licence

Apache-2.0, like the project; weights and training data alike.
"""


def card(figures: Figures, recipe: str) -> str:
    """The model card's text.

    Args:
        figures: of the weights that it describes.
        recipe: a paragraph on how long and on what they were trained.
    """
    missed = [name for name, goal in GOALS.items() if figures.generated[name] < goal]
    verdict = f"Below its goal: {', '.join(missed)}." if missed else "Every goal is met."
    return CARD.format(
        subjects=", ".join(SUBJECTS),
        colours=", ".join(COLOURS),
        places=", ".join(where.phrases[0] for where in PLACES.values()),
        times=", ".join(when.phrases[0] for when in TIMES.values()),
        styles=", ".join(words[0] for words in STYLE_WORDS.values()),
        table=figures.table(),
        verdict=verdict,
        networks="\n".join(f"| {name} | {count / 1e6:.1f} M |" for name, count in figures.parameters.items()),
        recipe=recipe,
    )


def main() -> None:
    """Read the command line and write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", type=Path, required=True, help="figures.json of an evaluation")
    parser.add_argument("--recipe", required=True, help="a paragraph on the run: machine, minutes, samples")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.write_text(card(Figures.load(options.figures), options.recipe), encoding="utf-8")


if __name__ == "__main__":
    main()
