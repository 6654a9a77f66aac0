"""Draw with a client of AUTOMATIC1111's API: `pip install webuiapi`."""

import os

from webuiapi import WebUIApi

api = WebUIApi(
    baseurl=os.environ["SEMANTIC_BIT_URL"] + "/sdapi/v1",
    username="anyone",
    password=os.environ.get("SEMANTIC_BIT_KEY", "none"),
)
result = api.txt2img(prompt="a cat on a mat", seed=1, steps=20, sampler_name="DPM++ 2M", scheduler="Karras")
result.image.save("cat.png")
print(result.info["infotexts"][0])
