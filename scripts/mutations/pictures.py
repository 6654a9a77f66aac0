"""The planted bugs of the randomness of pictures, and those that come in; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]

BATCH: Final = "engine/batch.py"
NOISE: Final = "engine/noise.py"
PICTURE: Final = "engine/picture.py"
LEG: Final = "engine/leg_state.py"
IN_COMPANY: Final = "tests/engine/test_engine.py::test_all_at_once_gives_the_bytes_of_each_alone"
EVERY_WISH: Final = "tests/engine/test_engine.py::test_every_wish_shows_in_the_picture"
NEXT_SEEDS: Final = (
    "tests/engine/test_engine.py::test_a_request_for_many_pictures_is_as_many_requests_with_the_next_seeds"
)
LIKE_DIFFUSERS: Final = (
    "tests/engine/test_batch.py::test_different_samplers_in_one_batch_each_end_where_diffusers_own_loop_does"
)
INPAINTED: Final = "tests/engine/test_oracle_pictures.py::test_inpainting_equals_diffusers"

MUTATIONS: Final = (
    # --- randomness ---------------------------------------------------------------------------------------------------
    Mutation(
        name="noise-shared",
        file=NOISE,
        old="torch.Generator().manual_seed(seed)",
        new="torch.Generator().manual_seed(0)",
        test=EVERY_WISH,
        why="Every picture would start from the same noise, whatever its seed.",
    ),
    Mutation(
        name="one-seed-for-all",
        file=PICTURE,
        old="params.of_image(image_index)",
        new="params.of_image(0)",
        test=NEXT_SEEDS,
        why="Somebody who asks for four pictures would get the same one four times.",
    ),
    Mutation(
        name="noise-from-everybodys-generator",
        file=NOISE,
        old="torch.randn((1, *shape), generator=generator)[0]",
        new="torch.randn((1, *shape))[0]",
        test=IN_COMPANY,
        why="A picture would depend on how many were drawn before it.",
    ),
    Mutation(
        name="noise-in-one-draw",
        file=NOISE,
        old="    for step in steps:\n        torch.randn((1, *shape), generator=generator, out=step[None])\n",
        new="    torch.randn(steps.shape, generator=generator, out=steps)\n",
        test="tests/engine/test_noise.py::test_each_draw_is_the_one_that_diffusers_would_make_at_that_step",
        why="Sizes that are not a multiple of 16 numbers would differ from diffusers' pictures of the same seed.",
    ),
    Mutation(
        name="initial-noise-unscaled",
        file=LEG,
        old="entry * self.initial_noise_scale",
        new="entry",
        test=LIKE_DIFFUSERS,
        why="Euler's pictures would begin with a fourteenth of their noise and end grey.",
    ),
    Mutation(
        name="noise-never-advances",
        file=BATCH,
        old="state.noise_index += state.draws[state.call_index]",
        new="state.noise_index += 0",
        test=LIKE_DIFFUSERS,
        why="A stochastic sampler would add the same noise at every step.",
    ),
    # --- pictures that come in ----------------------------------------------------------------------------------------
    Mutation(
        name="draw-order-swapped",
        file=NOISE,
        old="    image = draw() if has_image else None\n    entry = draw()\n",
        new="    entry = draw()\n    image = draw() if has_image else None\n",
        test="tests/engine/test_noise.py::test_draws_come_in_the_order_of_diffusers_pipelines",
        why="Image to image would give other pictures than diffusers for the same seed.",
    ),
    Mutation(
        name="blend-a-step-behind",
        file=LEG,
        old="self.known[self.call_index]",
        new="self.known[self.call_index - 1]",
        test=INPAINTED,
        why="What is kept would be as noisy as one call ago, and never without noise.",
    ),
    Mutation(
        name="nearest-mask",
        file="engine/pictures/mask.py",
        old="np.logical_or.reduce(cells, axis=(1, 3))",
        new="cells[:, 0, :, 0]",
        test="tests/engine/pictures/test_mask.py::test_a_line_of_one_pixel_survives",
        why="Lines thinner than a latent would be drawn in part, or not at all.",
    ),
    Mutation(
        name="composite-before-rounding",
        file="engine/pictures/composite.py",
        old="(255 - share) * old + 127) // 255",
        new="(255 - share) * old) // 255",
        test="tests/engine/pictures/test_composite.py::test_every_mix_of_two_bytes_is_rounded_to_the_nearest",
        why="Every repeated inpainting would darken the soft edge of its mask.",
    ),
    Mutation(
        name="hires-noise-of-another-seed",
        file=PICTURE,
        old="draw_noise(params.seed, shape, num_steps,",
        new='draw_noise(params.seed + (plan.start == "leg"), shape, num_steps,',
        test="tests/engine/test_oracle_pictures.py"
        "::test_hires_fix_equals_a_text_to_image_and_an_image_to_image_pipeline",
        why="The second leg has a fresh generator of the same seed, as A1111's.",
    ),
)
