"""Every setting of the server: its name in the environment or in `.env`, its unit, meaning and default.

Read once, by `server/settings_file.py`; an empty value means unset. Every part gets only its own values, as arguments.
"""

from __future__ import annotations

import re
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from engine.errors import InvalidParamsError
from engine.params import LIMITS
from engine.samplers import resolve_sampler

__all__ = [
    "DEFAULT_MODEL_ID",
    "REPOSITORY",
    "CompatApi",
    "Settings",
    "StartError",
]

REPOSITORY = Path(__file__).resolve().parent.parent
"""The folder that relative model folders start from, whatever the working directory is."""

DEFAULT_MODEL_ID = "models/dreamlet"

_API_KEY = re.compile(r"[!-~][ -~]{30,}[!-~]")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,2})?")

_ENGINE_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[1-9]\d{0,4})?")

_ORIGIN = re.compile(r"(http(?!.*:80$)|https(?!.*:443$))://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9]\d{0,4})?")
"""Of RFC 6454; what browsers leave out (default ports) or never send (a slash, capitals) would never match."""

_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~-]+)*")
_MODEL_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

CompatApi = Literal["openai", "a1111", "huggingface"]
"""APIs of other programs that are spoken here too."""

_Size = Annotated[int, Field(ge=LIMITS.min_size, le=LIMITS.max_size)]


class StartError(Exception):
    """The server cannot start like this. The message is one line for the operator."""


class Settings(BaseSettings):
    """The settings of one server process, frozen."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",  # .env may hold other programs' names; those close to ours are warned about
        frozen=True,
        hide_input_in_errors=True,
        protected_namespaces=(),  # MODEL_ID is the specification's name
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Address that `python -m server serve` listens on. Must be a loopback address as long as there are no API keys."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port that `python -m server serve` listens on; 0 takes any free one and prints it."""
    api_key: SecretStr | None = None
    """One API key with all scopes, for servers that need no more: any text of 32 characters or more. Never shown."""
    reload: bool = False
    """Restart when a source file changes. For development: the model is loaded again each time."""
    tls_cert: Path | None = None
    """PEM file with the certificate and those it hangs on; served as HTTPS by `python -m server serve`. A relative path
    starts at the repository's root."""
    tls_key: Path | None = None
    """PEM file with the certificate's key, without a password."""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Addresses or networks, separated by commas, whose `X-Forwarded-For`, `-Proto` and `-Host` are believed."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins (`https://dreams.example`), separated by commas, whose pages may use the API from a browser."""
    hsts_seconds: int = Field(default=0, ge=0, le=10**9)
    """Seconds for which browsers shall use nothing but HTTPS for this host name, on every port; 0 does not say."""
    max_connections: int = Field(default=1000, ge=1, le=100_000)
    """Connections held at a time by `python -m server serve`; beyond them a request is answered with 503 and its
    connection closed. One key has a quarter of them at most."""

    model_id: str = Field(default=DEFAULT_MODEL_ID, min_length=1)
    """The model: a folder in diffusers layout, the id of a model in the local Hugging Face cache, or `fake`. A relative
    folder is looked for in the repository's root."""
    models_dir: Path | None = None
    """A folder of more models that requests may name: folders in diffusers layout, and `.safetensors` files."""
    device_memory_budget: int | None = Field(default=None, ge=1)
    """MiB for the weights of all models together; a model that is not used leaves memory for another. Unset: 60 % of a
    GPU's memory, half of the free memory on a CPU."""
    host_memory_budget: int | None = Field(default=None, ge=0)
    """MiB of host memory, beside a GPU, for the weights of models that had to leave it. Unset: a quarter of what is
    free at the start; 0: none is kept."""
    device: str = "auto"
    """`auto` (cuda if there is one, else cpu), `cpu`, `cuda` or `cuda:N`."""
    devices: Annotated[tuple[str, ...], NoDecode] = ()
    """Devices of this machine that draw, separated by commas, one engine each: `cuda:0,cuda:1`, or `auto` for every
    GPU. Unset: `DEVICE` alone; none if ENGINES or ENGINE_POOL_URL is set."""
    engines: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses of engines elsewhere, separated by commas: `https://a:9000,https://b:9000`. A name with many addresses
    is as many engines, and is looked up again and again."""
    engine_pool_url: str | None = None
    """One address behind which a load balancer (Ray Serve, an ingress) distributes jobs among engines."""
    engine_token: SecretStr | None = None
    """What gateway and engines elsewhere show each other: any text of 32 characters or more. Never shown."""
    engine_ca: Path | None = None
    """PEM file with the certificate authority of the engines' certificates. Unset: those of the system."""
    torch_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Numbers the model computes with. `auto` is float16 on cuda and float32 on cpu."""
    vae_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Numbers the model's autoencoder computes with. `auto` is as `torch_dtype`, but float32 where the autoencoder is
    known to give black pictures in float16, as that of Stable Diffusion XL does."""
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the networks: `torch`, `openvino` (on a CPU, in float32), or `auto`: OpenVINO where it is installed and
    can, else torch."""

    default_steps: int = Field(default=28, ge=1, le=LIMITS.max_num_inference_steps)
    """Denoising steps of a request that does not say."""
    default_guidance_scale: float = Field(default=7.0, ge=0, le=LIMITS.max_guidance_scale, allow_inf_nan=False)
    """Classifier-free guidance of a request that does not say; 1 or less is off."""
    default_height: _Size | None = None
    """Pixels for a request that does not say; a multiple of the model's pixels per latent (16 for the built-in model, 8
    for Stable Diffusion 1.x). Unset: the size that the model was trained at."""
    default_width: _Size | None = None
    """Pixels for a request that does not say; a multiple of the model's pixels per latent (16 for the built-in model, 8
    for Stable Diffusion 1.x). Unset: the size that the model was trained at."""

    scheduler_type: str = "DPMSolver++"
    """Sampler of a request that does not say: any name or alias of a sampler, with its noise schedule if wanted."""
    use_karras_sigmas: bool = True
    """Use Karras noise levels where neither the request nor the sampler's name says otherwise and the sampler takes
    them."""

    wildcards_dir: Path | None = None
    """Folder of wildcards for dynamic prompts: `animals/birds.txt` holds a text a line for `__animals/birds__`. A
    relative one is in the repository's root. Unset: there are none."""

    embeddings_dir: Path | None = None
    """Folder of textual inversions (`.safetensors` files), which prompts name by the file's name. Read when the server
    starts. A relative one is in the repository's root. Unset: there are none."""

    offline_mode: bool = True
    """Never use the network. Always true: only `scripts/download_model.py` downloads."""
    local_files_only: bool = True
    """Read models from this machine only. Always true: only `scripts/download_model.py` downloads."""
    max_concurrent_requests: int | None = Field(default=None, ge=1, le=1024)
    """Pictures drawn together; a request counts its `num_images`. Unset: measured when the model is warmed up."""
    request_timeout: float = Field(default=60.0, gt=0, le=86400, allow_inf_nan=False)
    """Seconds from a request's acceptance, waiting included, after which it is cancelled and answered with 504."""
    max_queued_requests: int = Field(default=100, ge=0, le=100_000)
    """Requests that may wait their turn. Beyond that they are answered with 503 and `Retry-After`."""

    compat_apis: Annotated[tuple[CompatApi, ...], NoDecode] = ("openai", "a1111", "huggingface")
    """APIs of other programs that are served beside our own, separated by commas; `none` serves none."""
    compat_timeout: float = Field(default=600.0, gt=0, le=86400, allow_inf_nan=False)
    """Seconds for which those APIs wait for a picture; their clients cannot come back later."""
    public_url: str | None = None
    """Address of this server as its users reach it (`https://pictures.example`), for the addresses of pictures in the
    OpenAI API. Unset: the host that the request names."""
    openai_model_aliases: Annotated[tuple[str, ...], NoDecode] = ()
    """Names, separated by commas, that the OpenAI API lists as models beside the real one: some clients show only names
    that they know (`gpt-image-1`)."""

    limit_requests_per_minute: int = Field(default=1200, ge=0, le=100_000)
    """Requests that each API key may send in any minute; 0 is no limit. Beyond that: 429 with `Retry-After`."""
    limit_work_units_per_hour: int = Field(default=0, ge=0, le=10**9)
    """Work units of the jobs that are accepted from each API key in any hour; 0 is no limit."""
    limit_jobs: int = Field(default=50, ge=0, le=100_000)
    """Jobs of each API key that may wait and run at the same time; 0 is no limit."""
    price_per_work_unit: Decimal = Field(default=Decimal(0), ge=0, le=1000, allow_inf_nan=False)
    """Price of a work unit, in whatever currency; only jobs that are done are charged."""

    data_dir: Path = Path("var")
    """Folder for everything that is kept: jobs, pictures, sockets. A relative one is in the repository's root."""
    keep_results_hours: float = Field(default=168.0, gt=0, le=1e6, allow_inf_nan=False)
    """Hours that picture files are kept after their job has ended."""
    keep_results_mib: int = Field(default=2048, ge=1, le=10**9)
    """MiB that all picture files together may take; the oldest are deleted first."""
    keep_jobs_days: float = Field(default=90.0, gt=0, le=1e6, allow_inf_nan=False)
    """Days that a job, and its idempotency key, are known after it has ended."""
    drain_timeout: float = Field(default=60.0, ge=0, le=86400, allow_inf_nan=False)
    """Seconds that jobs which are being drawn get to finish when the server is told to stop."""
    watchdog_min: float = Field(default=10.0, ge=0.5, le=86400, allow_inf_nan=False)
    """Seconds without a sign of life after which the engine is replaced, at the least; 20 times its longest work item
    if that is more."""

    reproducible: bool = True
    """Give every model call the same number of rows, so that a picture's bytes do not depend on what else is drawn."""
    rows_per_call: int | None = Field(default=None, ge=1, le=1024)
    """Model rows in each call; a guided picture takes two. Unset: measured at warm-up on a GPU, 2 on a CPU."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe messages that are logged: `debug`, `info`, `warning` or `error`."""
    log_format: Literal["auto", "json", "pretty"] = "auto"
    """`json` (a JSON object a line), `pretty` (for people), or `auto`: pretty on a terminal, else json."""
    log_prompts: bool = False
    """Log prompts and negative prompts, and errors that could quote them: whoever reads logs then reads them."""

    @field_validator("backend", "log_level", "log_format", "torch_dtype", "vae_dtype", mode="before")
    @classmethod
    def _ignore_case(cls, word: object) -> object:
        return word.lower() if isinstance(word, str) else word

    @field_validator("devices", "engines", mode="before")
    @classmethod
    def _are_listed(cls, names: str | tuple[str, ...]) -> object:
        return tuple(_split(names)) if isinstance(names, str) else names

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_DEVICE.fullmatch(device) for device in devices) or ("auto" in devices and len(devices) > 1):
            raise ValueError("must be auto, or devices like cuda:0,cuda:1 or cpu,cpu")
        return devices

    @field_validator("engines", "engine_pool_url")
    @classmethod
    def _are_engines(cls, urls: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if not all(_ENGINE_URL.fullmatch(url) for url in ((urls,) if isinstance(urls, str) else urls or ())):
            raise ValueError("must be addresses like http://10.0.0.7:9000, without a path")
        return urls

    @field_validator("api_key", "engine_token")
    @classmethod
    def _is_an_api_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not _API_KEY.fullmatch(key.get_secret_value()):
            raise ValueError("must have 32 characters or more, printable ASCII, without leading or trailing spaces")
        return key

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _are_networks(cls, names: str | tuple[IPv4Network | IPv6Network, ...]) -> object:
        try:
            networks = [ip_network(name) for name in _split(names)] if isinstance(names, str) else names
        except ValueError:
            raise ValueError("must be addresses or networks, like 127.0.0.1,10.0.0.2") from None
        if not all(network.prefixlen for network in networks):
            raise ValueError("must not include every address (a network of /0)")
        return networks

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _are_origins(cls, names: str | tuple[str, ...]) -> object:
        origins = _split(names) if isinstance(names, str) else names
        if not all(_ORIGIN.fullmatch(origin) for origin in origins):
            # Not `*` either: without API keys any page that is open on this machine could draw and look.
            raise ValueError(
                "must be origins as browsers send them, like https://dreams.example: scheme, lower-case name and any "
                "port that is not the scheme's own; no path, and not *"
            )
        return origins

    @field_validator("compat_apis", mode="before")
    @classmethod
    def _are_known_apis(cls, names: str | tuple[str, ...]) -> object:
        apis = _split(names.lower()) if isinstance(names, str) else names
        known = get_args(CompatApi)
        if apis == ["none"]:
            return ()
        if not all(api in known for api in apis):
            raise ValueError(f"must be some of {', '.join(known)}, or none")
        return apis

    @field_validator("public_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not _PUBLIC_URL.fullmatch(url):
            raise ValueError("must be an address like https://pictures.example, without a slash at its end")
        return url

    @field_validator("openai_model_aliases", mode="before")
    @classmethod
    def _are_model_names(cls, names: str | tuple[str, ...]) -> object:
        aliases = _split(names) if isinstance(names, str) else names
        if not all(_MODEL_ALIAS.fullmatch(alias) for alias in aliases):
            raise ValueError("must be names of models, like gpt-image-1")
        return aliases

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not _DEVICE.fullmatch(device):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return device

    @field_validator("scheduler_type")
    @classmethod
    def _is_a_sampler(cls, label: str) -> str:
        try:
            resolve_sampler(label)
        except InvalidParamsError as error:
            raise ValueError(error.rule) from error
        return label

    @field_validator("offline_mode", "local_files_only")
    @classmethod
    def _never_downloads(cls, is_offline: bool) -> bool:  # noqa: FBT001 -- pydantic calls it with the value alone
        if not is_offline:
            raise ValueError("must be true: the server never downloads; `python scripts/download_model.py ID` does")
        return is_offline

    @property
    def model_name(self) -> str:
        """MODEL_ID as it is shown to callers: of a folder elsewhere on this machine, its own name alone."""
        path = Path(self.model_id)
        return path.name if path.is_absolute() or path.parts[:1] in {("~",), ("..",)} else self.model_id

    @property
    def server_folder(self) -> Path:
        """Where the server keeps its own things."""
        return REPOSITORY / self.data_dir / "server"

    @property
    def wildcards_folder(self) -> Path | None:
        """Where wildcards are."""
        return None if self.wildcards_dir is None else REPOSITORY / self.wildcards_dir

    @property
    def embeddings_folder(self) -> Path | None:
        """Where textual inversions are."""
        return None if self.embeddings_dir is None else REPOSITORY / self.embeddings_dir

    @property
    def cache_folder(self) -> Path:
        """For what is made again when it is missing."""
        return REPOSITORY / self.data_dir / "cache"

    @property
    def sampler(self) -> str:
        """Our name of the default sampler."""
        return self._sampler_and_schedule[0]

    @property
    def noise_schedule(self) -> str:
        """The default sampler's noise schedule."""
        return self._sampler_and_schedule[1]

    @property
    def _sampler_and_schedule(self) -> tuple[str, str]:
        sampler, noise_schedule = resolve_sampler(self.scheduler_type, prefer_karras=self.use_karras_sigmas)
        return sampler.name, noise_schedule


def _split(names: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", names) if name]
