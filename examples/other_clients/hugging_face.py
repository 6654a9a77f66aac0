"""Draw with Hugging Face's client: `pip install huggingface_hub pillow`."""

import os

from huggingface_hub import InferenceClient

client = InferenceClient(model=os.environ["SEMANTIC_BIT_URL"], token=os.environ.get("SEMANTIC_BIT_KEY", "none"))
client.text_to_image("a cat on a mat", num_inference_steps=20, seed=1).save("cat.png")
print("cat.png is there")
