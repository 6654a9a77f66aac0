"""Draw pictures with a Semantic Bit GPU server.

    from semantic_bit_client import Client

    with Client("http://127.0.0.1:8000") as client:
        client.generate("a cat on a mat, digital art").save("cat.png")

`Client` waits, `AsyncClient` awaits; the rules they follow (`calls.py`, `retries.py`, `job_follower.py`) are the same.
"""

from typing import TYPE_CHECKING

from semantic_bit_client.client import Client, Job
from semantic_bit_client.drawing import Drawing, Expand, Hires, JobDrawing, Upscaling
from semantic_bit_client.errors import (
    BadAnswer,
    InvalidRequest,
    JobCancelled,
    JobDead,
    JobFailed,
    JobNotDone,
    JobNotFound,
    KeyReused,
    NoConnection,
    NotAuthorised,
    NotSupported,
    RateLimited,
    ResultExpired,
    SemanticBitError,
    ServerBusy,
    ServerFault,
    ServerUnavailable,
    TookTooLong,
    WrongValue,
)
from semantic_bit_client.models import (
    Cost,
    Engine,
    Failure,
    GeneratorInfo,
    Health,
    ImageInfo,
    InputPicture,
    JobCounts,
    JobState,
    JobStatus,
    Model,
    Params,
    Picture,
    PictureInfo,
    Progress,
    Queue,
    Sampler,
    Timings,
    Usage,
    UsageDay,
    UsageSum,
)
from semantic_bit_client.retries import Retries
from semantic_bit_client.uploads import AnyPicture

if TYPE_CHECKING:
    from semantic_bit_client.async_client import AsyncClient, AsyncJob
else:

    def __getattr__(name: str) -> object:
        """The asyncio half when it is first asked for: a script that waits starts a third sooner without asyncio."""
        if name not in {"AsyncClient", "AsyncJob"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from semantic_bit_client import async_client  # noqa: PLC0415 -- see above

        return getattr(async_client, name)


__all__ = [
    "AnyPicture",
    "AsyncClient",
    "AsyncJob",
    "BadAnswer",
    "Client",
    "Cost",
    "Drawing",
    "Engine",
    "Expand",
    "Failure",
    "GeneratorInfo",
    "Health",
    "Hires",
    "ImageInfo",
    "InputPicture",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobCounts",
    "JobDead",
    "JobDrawing",
    "JobFailed",
    "JobNotDone",
    "JobNotFound",
    "JobState",
    "JobStatus",
    "KeyReused",
    "Model",
    "NoConnection",
    "NotAuthorised",
    "NotSupported",
    "Params",
    "Picture",
    "PictureInfo",
    "Progress",
    "Queue",
    "RateLimited",
    "ResultExpired",
    "Retries",
    "Sampler",
    "SemanticBitError",
    "ServerBusy",
    "ServerFault",
    "ServerUnavailable",
    "Timings",
    "TookTooLong",
    "Upscaling",
    "Usage",
    "UsageDay",
    "UsageSum",
    "WrongValue",
]
