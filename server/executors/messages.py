"""The protocol between gateway and engine process: typed messages in length-prefixed msgpack frames.

A frame is the body's length (4 bytes, big-endian) and the body. Both ends run the same code, so a message carries no
version. A `job_id` here is that of one attempt, `JOB.ATTEMPT`: what an attempt says that was given up is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from engine.errors import InvalidParamsError
from engine.params import GenerationParams
from server.picture_info.file_info import ImageMetadata

__all__ = [
    "Cancel",
    "Configure",
    "DeviceMemory",
    "EngineInfo",
    "FinishEarly",
    "FromEngine",
    "ImageReady",
    "JobDone",
    "JobFailed",
    "JobMessage",
    "LoadFailed",
    "LoadProgress",
    "Loading",
    "ModelsChanged",
    "OutOfMemory",
    "Ping",
    "Pong",
    "Preview",
    "Progress",
    "Ready",
    "Submit",
    "ToEngine",
    "ToWorker",
    "WorkDone",
    "decode_from_engine",
    "decode_to_engine",
    "frame",
]

MAX_FRAME_BYTES: Final = 256 * 2**20
HEADER: Final = struct.Struct(">I")


class _Message(msgspec.Struct, frozen=True, tag=True):
    pass


# --- gateway -> engine ------------------------------------------------------------------------------------------------


class Configure(_Message, frozen=True):
    """The first message: which model to load, and how to run it."""

    model_id: str
    """A folder in diffusers layout, a Hugging Face model id in the local cache, `fake` or `fake-engine`."""
    device: str
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    dtype: str
    """`auto`, `float32`, `float16` or `bfloat16`."""
    vae_dtype: str = "auto"
    """The same, of the autoencoder; `auto`: as `dtype`, but float32 where that is known to be needed."""
    backend: str = "auto"
    """What runs the networks: `auto`, `torch` or `openvino`."""
    rows_per_call: int | None = None
    """Model rows in every call; None: measured at warm-up on a GPU, 2 on a CPU."""
    max_images_in_flight: int | None = None
    """Pictures drawn together; None: as many guided ones as `rows_per_call` holds."""
    reproducible: bool = True
    """Pad every call to the same number of rows, so that neighbours never change a picture's bytes."""
    sampler: str = "DPMSolver++"
    """The default sampler, whose table is made ready at warm-up (with its noise schedule and step count)."""
    noise_schedule: str = "karras"
    num_inference_steps: int = 28
    warms_up_first: bool = True
    """Draw a first small picture before it is ready; if not, it is drawn when nobody waits."""
    cache_folder: str | None = None
    """For what the engine makes once and reads at later starts; None: nothing is kept."""
    log_level: str = "info"
    """What the engine process logs, and how: as in `Settings`."""
    log_format: Literal["auto", "json", "pretty"] = "auto"
    log_prompts: bool = False
    model_name: str = ""
    """What files say that their pictures were drawn with: `model_id` as it is shown to callers."""
    models: Mapping[str, str] = {}
    """Other models that requests may name -> as `model_id`. Each is loaded when it is first asked for."""
    device_memory_bytes: int | None = None
    """For the weights of all models together; None: a share of what there is."""
    embeddings_folder: str | None = None
    """Of textual inversions; None: there are none."""
    host_memory_bytes: int | None = None
    """Beside a GPU, for weights that had to leave it; None: a share of what there is."""


class Submit(_Message, frozen=True):
    """Draw this."""

    job_id: str
    params: GenerationParams
    output_format: str
    """`png`, `webp` or `jpeg`."""
    inputs: Mapping[str, bytes] = {}
    """SHA-256 -> PNG file, of the pictures that the request starts from."""
    image_metadata: ImageMetadata = "full"
    output_quality: int | None = None
    """Of a JPEG or WebP file, 0 to 100; None: the encoder's own."""


class Cancel(_Message, frozen=True):
    """Stop drawing this before the next step. Answered by silence; unknown jobs are ignored."""

    job_id: str


class FinishEarly(_Message, frozen=True):
    """Take no more steps for pictures of this job, and send them as far as they are. Unknown jobs are ignored.

    Pictures of which nothing shows yet are left out. The job ends as always, when nothing is left of it.
    """

    job_id: str
    image_indices: tuple[int, ...] | None = None
    """None: all that are left."""


class Ping(_Message, frozen=True):
    """Answered by the engine's own thread, between two work items."""

    number: int


ToWorker = Submit | Cancel | FinishEarly | Ping
"""What an engine is sent while it draws."""

ToEngine = Configure | ToWorker


# --- engine -> gateway ------------------------------------------------------------------------------------------------


class Loading(_Message, frozen=True):
    """A phase of the start begins (see `LoadProgress`)."""

    phase: str


class LoadProgress(_Message, frozen=True):
    """A phase of the start has ended.

    As far as there are: `import`, `import_model`, `convert`, `load`, `measure`, `warm_up`.
    """

    phase: str
    seconds: float


class EngineInfo(msgspec.Struct, frozen=True):
    """What the engine is running."""

    model_id: str
    device: str
    """`cpu` or `cuda`, with the index where there are several."""
    device_name: str
    dtype: str
    native_height: int
    """Pixels the model was trained at."""
    native_width: int
    rows_per_call: int
    max_images_in_flight: int
    backend: str = "torch"
    """What runs the networks: `torch` or `openvino`."""
    num_threads: int | None = None
    """CPU threads that compute one call; None on a GPU."""
    warning: str | None = None
    """What the operator should know of how it runs."""
    engine_class: str = ""
    """Engines of one class draw the same bytes (see `engine_class.py`). Empty: not known, or several of them."""


class Ready(_Message, frozen=True):
    """The model is loaded, and draws."""

    info: EngineInfo
    is_warm: bool = True
    """Whether each kind of its work has been done and reported. If not, the first of a kind may take long."""


class LoadFailed(_Message, frozen=True):
    """The model cannot be served. The engine process ends after this."""

    message: str


class Progress(_Message, frozen=True):
    """A picture has taken a step."""

    job_id: str
    image_index: int
    step: int
    steps: int


class Preview(_Message, frozen=True):
    """What shows of a picture that is being drawn: small, now and then, and never after its last step."""

    job_id: str
    image_index: int
    step: int
    """Model calls that the picture had taken."""
    data: bytes
    media_type: str


class ImageReady(_Message, frozen=True):
    """A finished picture, as a file."""

    job_id: str
    image_index: int
    seed: int
    data: bytes
    media_type: str


class JobDone(_Message, frozen=True):
    """Every picture of the job has been sent. Seconds are those of the engine process."""

    job_id: str
    encode_s: float
    denoise_s: float
    decode_s: float
    file_s: float
    """Writing the picture files (PNG, WebP, JPEG)."""
    truncated_tokens: int
    engine_class: str = ""
    """Of the engine that drew it; empty where the gateway knows it already (see `EngineInfo`)."""


class JobFailed(_Message, frozen=True):
    """The job has ended without all its pictures."""

    job_id: str
    error: str
    """The class name, from `engine.errors`."""
    message: str
    field: str | None = None
    rule: str | None = None
    value: str | int | float | bool | None = None

    @classmethod
    def of(cls, job_id: str, error: Exception) -> JobFailed:
        """What is said of an error of `engine.errors` or `server.errors`."""
        if not isinstance(error, InvalidParamsError):
            return cls(job_id, type(error).__name__, str(error))
        value = error.value
        is_small = not isinstance(value, int) or abs(value) < 2**63
        plain = value if value is None or (isinstance(value, str | int | float) and is_small) else str(value)
        return cls(job_id, type(error).__name__, str(error), error.field, error.rule, plain)


class WorkDone(_Message, frozen=True):
    """One work item of the engine has ended."""

    kind: str
    seconds: float
    rows: int
    height: int
    width: int
    rows_by_job: dict[str, int] = {}
    """Job -> its own rows among them. Empty for the warm-up, which is nobody's."""
    backend: str = "torch"
    """What ran the network: as in `EngineInfo`."""
    model: str = ""
    """Whose it was: as `GenerationParams.model` names it."""

    def seconds_of(self, job_id: str) -> float:
        """The part of its time that was spent on a job: padding is shared as the rows are."""
        return self.seconds * self.rows_by_job[job_id] / sum(self.rows_by_job.values())


class OutOfMemory(_Message, frozen=True):
    """A work item ran out of device memory. Whether its job failed is reported separately."""

    kind: str
    """What it was: `prepare` or a work item's kind."""


class DeviceMemory(msgspec.Struct, frozen=True):
    """The memory of the engine's device, in bytes."""

    total_bytes: int
    free_bytes: int
    """What no process has taken."""
    reserved_bytes: int
    """What the engine has taken, to use it again."""
    allocated_bytes: int
    """What of that holds something."""


class Pong(_Message, frozen=True):
    """The answer to the ping of the same number."""

    number: int
    device_memory: DeviceMemory | None = None
    """None on a device that shares the machine's own memory."""


class ModelsChanged(_Message, frozen=True):
    """Which of several models the engine has in memory now. Not sent where there is only one."""

    resident: tuple[str, ...]
    """As `GenerationParams.model` names them."""
    sizes: dict[str, int]
    """Bytes that each takes, of all that it can draw with."""
    budget_bytes: int | None = None
    """For those in memory together; None: no limit."""
    load_seconds: dict[str, float] = {}
    """How long each took to load last, of those that it has loaded."""

    def load_s(self, model: str) -> float:
        """How long a model takes to load: as last time, or as the slowest of the others; 0.0 while none was loaded."""
        return self.load_seconds.get(model, max(self.load_seconds.values(), default=0.0))

    def fits(self, models: Iterable[str]) -> bool:
        """Whether these models, each named once, fit into memory together."""
        return self.budget_bytes is None or sum(self.sizes.get(name, 0) for name in models) <= self.budget_bytes


FromEngine = (
    Loading
    | LoadProgress
    | Ready
    | ModelsChanged
    | LoadFailed
    | Progress
    | Preview
    | ImageReady
    | JobDone
    | JobFailed
    | WorkDone
    | OutOfMemory
    | Pong
)

JobMessage = Progress | Preview | ImageReady | JobDone | JobFailed

_encoder = msgspec.msgpack.Encoder()
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)


def frame(message: ToEngine | FromEngine) -> bytes:
    """The message as it travels, its length in front."""
    body = _encoder.encode(message)
    return HEADER.pack(len(body)) + body


def decode_to_engine(body: bytes) -> ToEngine:
    """Read a message for the engine from a frame's body.

    Raises:
        msgspec.DecodeError: not such a message.
    """
    message: ToEngine = _to_engine.decode(body)
    return message


def decode_from_engine(body: bytes) -> FromEngine:
    """Read a message from the engine from a frame's body.

    Raises:
        msgspec.DecodeError: not such a message.
    """
    message: FromEngine = _from_engine.decode(body)
    return message
