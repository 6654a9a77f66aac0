"""What a model folder in diffusers layout must hold, and which models are served: read off its JSON files. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.errors import ModelLoadError
from engine.models.families import Family, check_added_inputs, check_channels, family_of
from engine.models.json_file import read_json
from engine.models.side_file import SideFile, read_side_file
from engine.models.single_file import SingleFile, read_single_file
from engine.params import LIMITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "PROMPT_TOKENS",
    "WEIGHTS_STEM",
    "ModelConfigs",
    "TextEncoderPart",
    "check_tokenizer_class",
    "find_weights",
    "missing_files",
    "read_configs",
]

TextEncoderPart = Literal["text_encoder", "text_encoder_2"]

PROMPT_TOKENS = 77
"""What the text encoder reads of a prompt, its beginning and end included."""

WEIGHTS_STEM = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Part of the model -> its weights file without suffix; the fp16 variant puts `.fp16` before the suffix."""

# Tuples and not sets: what they are compared with comes from a file and may be unhashable.
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
# Of the scheduler only the noise levels are read, whatever its class; the caller chooses the sampler.
_PARTS = (*_CLASSES, "scheduler")
_PIPELINE_PREFIXES = ("StableDiffusion", "LatentConsistencyModel")
_SECOND = ("text_encoder_2", "tokenizer_2")
"""Parts that only Stable Diffusion XL has."""
_IGNORED_PARTS = ("safety_checker", "feature_extractor", "image_encoder")
_LIBRARIES = ("diffusers", "transformers")
_PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")

_DEFAULT_CHANNELS = 4
"""What diffusers takes where a configuration does not say."""
_MAX_CHANNELS = 128
_MAX_PIXELS_PER_LATENT = 32
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True, slots=True)
class ModelConfigs:
    """The configuration files of a model that is served, as they stand."""

    family: Family
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    text_encoder_2: Mapping[str, Any] | None
    """Set in Stable Diffusion XL."""
    scheduler: Mapping[str, Any]
    side: SideFile
    single: SingleFile | None
    """Where all of it is in one file."""
    zeros_for_empty: bool
    """Whether an empty text is all zeros to the network."""
    native_height: int
    """Pixels the model was trained at."""
    native_width: int
    pixels_per_latent: int
    """Along each side."""

    @property
    def text_encoders(self) -> tuple[TextEncoderPart, ...]:
        """The parts that read a text, in order."""
        return ("text_encoder",) if self.text_encoder_2 is None else ("text_encoder", "text_encoder_2")

    def text_width(self, part: str) -> int:
        """D: numbers that a text encoder gives for each token."""
        return int(self._text_config(part).get("hidden_size", 512))

    def text_layers(self, part: str) -> int:
        """Layers of a text encoder."""
        return int(self._text_config(part).get("num_hidden_layers", 12))

    def _text_config(self, part: str) -> Mapping[str, Any]:
        return self.text_encoder if part == "text_encoder" else self.text_encoder_2 or {}


def read_configs(folder: Path) -> ModelConfigs:
    """Read a model's configuration and check that it is of a kind that is served: see `docs/models.md`.

    Args:
        folder: in diffusers layout; or a single file.

    Raises:
        ModelLoadError: a file is missing or damaged, or the model is of another kind; it names file and reason.
    """
    single = read_single_file(folder) if folder.is_file() else None
    side = read_side_file(folder) if single is None else single.side
    index = _read_index(folder / "model_index.json") if single is None else _index_of(single)

    def config_of(part: str, name: str = "config.json") -> dict[str, Any]:
        return read_json(folder / part / name) if single is None else dict(single.configs[part])

    unet = config_of("unet")
    vae = _replaced_vae(side, config_of("vae"))
    text_encoder = config_of("text_encoder")
    text_encoder_2 = config_of("text_encoder_2") if _names_second(index) else None
    scheduler = config_of("scheduler", "scheduler_config.json")
    if side.prediction_type is not None:
        scheduler["prediction_type"] = side.prediction_type
    if side.zero_terminal_snr is not None:
        scheduler["rescale_betas_zero_snr"] = side.zero_terminal_snr
    latent_channels, pixels_per_latent = _latent_shape(folder / "vae" / "config.json", vae)
    _check_class(folder / "unet" / "config.json", "unet", unet.get("_class_name"))
    check_channels(folder / "unet" / "config.json", unet, latent_channels, _DEFAULT_CHANNELS)
    family = family_of(unet)
    _check_second_text_encoder(folder, text_encoder_2, family)
    projection_width = None if text_encoder_2 is None else text_encoder_2.get("projection_dim", 512)
    check_added_inputs(folder / "unet" / "config.json", unet, projection_width)
    _check_text_encoder(folder / "text_encoder" / "config.json", "text_encoder", text_encoder)
    _check_text_width(folder / "text_encoder" / "config.json", (text_encoder, text_encoder_2), unet)
    _check_scheduler(folder / "scheduler" / "scheduler_config.json", scheduler)
    height, width = _sample_size(folder / "unet" / "config.json", unet)
    return ModelConfigs(
        family,
        unet,
        vae,
        text_encoder,
        text_encoder_2,
        scheduler,
        side,
        single,
        zeros_for_empty=text_encoder_2 is not None and index.get("force_zeros_for_empty_prompt", True) is True,
        native_height=height * pixels_per_latent,
        native_width=width * pixels_per_latent,
        pixels_per_latent=pixels_per_latent,
    )


def missing_files(folder: Path) -> list[str]:
    """The needed files that are not there, relative to the folder; one name where either of several would do.

    Raises:
        ModelLoadError: weights are there, but only as pickle files.
    """
    second = _has_second(folder / "model_index.json")
    stems = {part: stem for part, stem in WEIGHTS_STEM.items() if second or part not in _SECOND}
    needed = ["model_index.json", "scheduler/scheduler_config.json"]
    needed += [f"{part}/config.json" for part in stems]
    missing = [name for name in needed if not (folder / name).is_file()]
    for part, stem in stems.items():
        if not _weights_candidates(folder, part):
            _refuse_pickle(folder / part)
            missing.append(f"{part}/{stem}.safetensors")
    for name in ("tokenizer", "tokenizer_2") if second else ("tokenizer",):
        tokenizer = folder / name
        if not (tokenizer / "tokenizer.json").is_file():
            missing += [f"{name}/{n}" for n in ("vocab.json", "merges.txt") if not (tokenizer / n).is_file()]
    return missing


def find_weights(folder: Path, part: str, *, prefer_fp16: bool) -> Path:
    """The safetensors file with the weights of a part of `WEIGHTS_STEM`: the preferred variant if it is there.

    Raises:
        ModelLoadError: there is none.
    """
    found = _weights_candidates(folder, part)
    if not found:
        _refuse_pickle(folder / part)
        raise ModelLoadError(f"{folder / part / WEIGHTS_STEM[part]}.safetensors is missing")
    return found[-1] if prefer_fp16 else found[0]


def check_tokenizer_class(path: Path) -> None:
    """Check that a `tokenizer_config.json`, where there is one, asks for CLIP's tokenizer.

    Raises:
        ModelLoadError: it asks for another class, or is damaged.
    """
    class_name = read_json(path).get("tokenizer_class") if path.is_file() else None
    if class_name is not None:
        _check_class(path, "tokenizer", class_name)


def _weights_candidates(folder: Path, part: str) -> list[Path]:
    """The weights files that are there, the full one first.

    Raises:
        ModelLoadError: they are only there in pieces.
    """
    if part == "vae" and (vae := read_side_file(folder).vae) is not None:
        if vae.is_file():
            return [vae]
        stem = vae / WEIGHTS_STEM[part]
    elif folder.is_file():
        return [folder]
    else:
        stem = folder / part / WEIGHTS_STEM[part]
    found = [path for path in (Path(f"{stem}.safetensors"), Path(f"{stem}.fp16.safetensors")) if path.is_file()]
    if not found and (pieces := Path(f"{stem}.safetensors.index.json")).is_file():
        raise ModelLoadError(f"{pieces}: weights in several files are not served; get the model with one file a part")
    return found


def _refuse_pickle(part: Path) -> None:
    pickles = sorted(p.name for p in part.iterdir() if p.suffix in _PICKLE_SUFFIXES) if part.is_dir() else []
    if pickles:
        raise ModelLoadError(
            f"{part} has its weights only as {pickles[0]}: such files can run code when they are opened, "
            "so only .safetensors is read; get the model's safetensors version"
        )


def _has_second(path: Path) -> bool:
    """Whether an index names a second text encoder; a damaged one is reported when it is read as a whole."""
    try:
        index = read_json(path) if path.is_file() else {}
    except ModelLoadError:
        return False
    return _names_second(index)


def _names_second(index: Mapping[str, Any]) -> bool:
    return index.get("text_encoder_2") not in (None, [None, None])


def _read_index(path: Path) -> Mapping[str, Any]:
    """The index: which parts there are. The family is read off the parts, whatever pipeline it was saved from."""
    index = read_json(path)
    class_name = index.get("_class_name")
    if not isinstance(class_name, str) or not class_name.startswith(_PIPELINE_PREFIXES):
        raise ModelLoadError(f"{path}: {class_name!r} is not served, only Stable Diffusion 1, 2 and XL")
    for part, value in index.items():
        if part in _IGNORED_PARTS or not (isinstance(value, list) and len(value) == 2 and value[1] is not None):
            continue
        library, class_name = value
        if part not in _PARTS or library not in _LIBRARIES:
            raise ModelLoadError(f"{path}: the part {part!r} ({library}, {class_name}) is not known; no code is loaded")
        if part in _CLASSES:
            _check_class(path, part, class_name)
    return index


def _index_of(single: SingleFile) -> Mapping[str, Any]:
    return {part: ["transformers", "CLIPTextModelWithProjection"] for part in single.prefixes if part in _SECOND}


def _replaced_vae(side: SideFile, own: dict[str, Any]) -> dict[str, Any]:
    """What an autoencoder says that takes the place of the model's own; of a single file it is what that says.

    Raises:
        ModelLoadError: it is another family's.
    """
    if side.vae is None or side.vae.is_file():
        return own
    path = side.vae / "config.json"
    other = read_json(path)
    factors = [config.get("scaling_factor", 0.18215) for config in (own, other)]
    if own.get("_class_name") == other.get("_class_name") and factors[0] != factors[1]:
        raise ModelLoadError(
            f"{path}: scaling_factor must be {factors[0]!r}, as the model's latents have it, not {factors[1]!r}; "
            "autoencoder and model are not of the same family"
        )
    return other


def _check_second_text_encoder(folder: Path, config: Mapping[str, Any] | None, family: Family) -> None:
    if (config is not None) != (family.num_text_encoders == 2):
        raise ModelLoadError(
            f"{folder / 'model_index.json'}: a text_encoder_2 belongs to Stable Diffusion XL, and to no other model; "
            f"its UNet is {family.name}"
        )
    if config is not None:
        _check_text_encoder(folder / "text_encoder_2" / "config.json", "text_encoder_2", config)


def _latent_shape(path: Path, vae: Mapping[str, Any]) -> tuple[int, int]:
    """Channels of the autoencoder's latents, and the pixels that each stands for, along each side."""
    _check_class(path, "vae", vae.get("_class_name"))
    channels = vae.get("latent_channels", _DEFAULT_CHANNELS)
    if not _is_whole(channels, 1, _MAX_CHANNELS):
        raise ModelLoadError(
            f"{path}: latent_channels must be a whole number from 1 to {_MAX_CHANNELS}, not {channels!r}"
        )
    if vae.get("upsampling_scaling_factor", 2) != 2:
        raise ModelLoadError(f"{path}: upsampling_scaling_factor must be 2")
    blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels") or []
    # Every block but one halves the picture.
    pixels_per_latent = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and 0 < len(blocks) < 10 else 0
    if not 1 < pixels_per_latent <= _MAX_PIXELS_PER_LATENT:
        raise ModelLoadError(
            f"{path}: block_out_channels must have 2 to 6 entries (a latent is at most "
            f"{_MAX_PIXELS_PER_LATENT}x{_MAX_PIXELS_PER_LATENT} pixels), not {blocks!r}"
        )
    return channels, pixels_per_latent


def _check_text_encoder(path: Path, part: str, config: Mapping[str, Any]) -> None:
    # Old files carry no `architectures`; the index has named the class then.
    architectures = config.get("architectures") or []
    for class_name in architectures if isinstance(architectures, list) else [architectures]:
        _check_class(path, part, class_name)
    if config.get("max_position_embeddings", PROMPT_TOKENS) != PROMPT_TOKENS:
        raise ModelLoadError(f"{path}: max_position_embeddings must be {PROMPT_TOKENS}")


def _check_text_width(path: Path, encoders: Sequence[Mapping[str, Any] | None], unet: Mapping[str, Any]) -> None:
    """Check that the UNet reads what the encoders write, side by side."""
    wanted = unet.get("cross_attention_dim", 1280)
    widths = [config.get("hidden_size", 512) for config in encoders if config is not None]
    hidden_size = sum(widths) if all(isinstance(width, int) for width in widths) else widths
    if any(dim != hidden_size for dim in (wanted if isinstance(wanted, list) else [wanted])):
        raise ModelLoadError(
            f"{path}: hidden_size is {hidden_size!r}, but the UNet's cross_attention_dim is {wanted!r}; "
            "text encoder and UNet are not of the same model"
        )


def _check_scheduler(path: Path, config: Mapping[str, Any]) -> None:
    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in _PREDICTION_TYPES:
        raise ModelLoadError(f"{path}: prediction_type must be epsilon or v_prediction, not {prediction_type!r}")
    schedule = config.get("beta_schedule", "linear")
    if schedule not in _BETA_SCHEDULES:
        raise ModelLoadError(f"{path}: beta_schedule must be one of {', '.join(_BETA_SCHEDULES)}")
    num_train_timesteps = config.get("num_train_timesteps", 1000)
    if not _is_whole(num_train_timesteps, 1, 100_000):
        raise ModelLoadError(
            f"{path}: num_train_timesteps must be a whole number from 1 to 100000, not {num_train_timesteps!r}"
        )
    trained_betas = config.get("trained_betas") or []
    betas = [config.get("beta_start", 0.0001), config.get("beta_end", 0.02)]
    betas += trained_betas if isinstance(trained_betas, list) else [trained_betas]
    if not all(isinstance(beta, float | int) and 0 < beta < 1 for beta in betas):
        raise ModelLoadError(f"{path}: beta_start, beta_end and trained_betas must lie between 0 and 1")


def _sample_size(path: Path, unet: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the latents that the UNet was trained at."""
    size = unet.get("sample_size")
    pair: list[Any] = size if isinstance(size, list) else [size, size]
    if len(pair) != 2 or not all(_is_whole(side, 1, LIMITS.max_size) for side in pair):
        raise ModelLoadError(
            f"{path}: sample_size must be a whole number from 1 to {LIMITS.max_size}, or two of them, not {size!r}"
        )
    height, width = pair
    return height, width


def _check_class(path: Path, part: str, class_name: object) -> None:
    if class_name not in _CLASSES[part]:
        raise ModelLoadError(f"{path}: {part} must be one of {', '.join(_CLASSES[part])}, not {class_name!r}")


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
