"""Draw with the engine alone, without the server; from the repository's root: .venv/bin/python -m examples.engine."""

import torch
from PIL import Image

from engine.engine import Engine
from engine.events import Failed, ImageDrawn
from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams

model = StableDiffusion.load(locate("models/dreamlet"), torch.device("cpu"), torch.float32)
engine = Engine(model, rows_per_call=8)
height, width = model.info.native_height, model.info.native_width
requests = {
    "cat": GenerationParams(prompt="a cat", seed=5, num_inference_steps=8, height=height, width=width),
    "boat": GenerationParams(prompt="a blue boat", seed=7, num_inference_steps=12, height=height, width=width),
}
for request_id, params in requests.items():
    engine.add(engine.prepare(request_id, params))
while engine.has_work:
    for event in engine.step():  # one denoising step of all pictures together
        if isinstance(event, ImageDrawn):
            Image.fromarray(event.pixels).save(f"{event.request_id}.png")
        elif isinstance(event, Failed):
            raise event.error
