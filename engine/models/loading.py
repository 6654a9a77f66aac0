"""From a model folder to its parts, ready to draw: safetensors only, and no code but ours.

Modules are laid out on the meta device, so that no weight is ever drawn at random just to be overwritten; then every
tensor goes from the memory-mapped file straight to its place, device, dtype and memory format.
"""

from __future__ import annotations

import re
import weakref
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import torch

from engine.backends.base import NetworkFiles
from engine.errors import ModelLoadError
from engine.models.layout import TextEncoderPart, find_weights, read_configs
from engine.models.ldm_names import Source, autoencoder_source, open_clip_source, unet_source
from engine.models.loras import Change, changed, lora_changes
from engine.models.options import Options
from engine.models.single_file import autoencoder_prefix
from engine.models.unet_plan import UNetPlan
from engine.models.weights_file import WeightsFile
from engine.models.weights_header import read_header
from engine.networks.autoencoder import AutoencoderKL, AutoencoderTiny
from engine.networks.clip import TextEncoder
from engine.networks.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "lay_out_vae",
    "load_scheduler_config",
    "load_text_encoder",
    "load_unet",
    "load_vae",
    "network_files",
    "read_unet_plan",
]

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

_MOST_KEYS_NAMED: Final = 5


Part = Literal["unet", "vae", "text_encoder", "text_encoder_2"]


def network_files(folder: Path, part: Part, dtype: torch.dtype, device: torch.device) -> NetworkFiles:
    """Where one of the model's networks comes from.

    Raises:
        ModelLoadError: a file is missing, or the model is not served; the message names file and reason.
    """
    configs = read_configs(folder)
    last: weakref.ref[torch.nn.Module] | None = None

    def load() -> torch.nn.Module:
        nonlocal last
        module = None if last is None else last()
        # The text encoder that torch runs is also asked what no backend compiles: once in memory is enough.
        if module is None:
            match part:
                case "unet":
                    module = load_unet(folder, dtype, device)
                case "vae":
                    module = load_vae(folder, dtype, device)
                case _:
                    module = load_text_encoder(folder, dtype, device, part)
            last = weakref.ref(module)
        return module

    return NetworkFiles(
        name=part,
        config=getattr(configs, part),
        weights=find_weights(folder, part, prefer_fp16=dtype == torch.float16),
        changes=() if part == "vae" else tuple((lora.path, lora.share_of(part)) for lora in configs.side.loras),
        load=load,
    )


def read_unet_plan(folder: Path) -> UNetPlan:
    """The denoising network in numbers.

    Raises:
        ModelLoadError: its file is missing or damaged, or the model is not served; the message names file and reason.
    """
    path = folder / "unet" / "config.json"
    return UNetPlan.read(Options(path, read_configs(folder).unet))


def load_unet(folder: Path, dtype: torch.dtype, device: torch.device) -> UNet:
    """The denoising network: frozen, in eval mode and channels_last.

    Raises:
        ModelLoadError: a file is missing or damaged, or the model is not served; the message names file and reason.
    """
    plan, configs = read_unet_plan(folder), read_configs(folder)
    unet = _build(folder / "unet" / "config.json", lambda: UNet(plan))
    weights = find_weights(folder, "unet", prefer_fp16=dtype == torch.float16)
    changes = lora_changes(
        configs.side.loras,
        "unet",
        ("unet", *configs.text_encoders),
        unet.state_dict(),
        lambda name: unet_source(name, plan).name,
    )
    sources = None
    if configs.single is not None:
        sources = _prefixed(configs.single.prefixes["unet"], lambda name: unet_source(name, plan))
    return _fill(unet, weights, dtype, device, sources=sources, changes=changes)


def load_vae(folder: Path, dtype: torch.dtype, device: torch.device) -> AutoencoderKL | AutoencoderTiny:
    """The autoencoder: frozen, in eval mode and channels_last.

    Raises:
        ModelLoadError: as in `load_unet`.
    """
    weights, configs = find_weights(folder, "vae", prefer_fp16=dtype == torch.float16), read_configs(folder)
    vae = lay_out_vae(folder)
    is_alone = configs.side.vae is not None and configs.side.vae.is_file()
    if isinstance(vae, AutoencoderKL) and (is_alone or (configs.single is not None and configs.side.vae is None)):
        # A file with nothing but an autoencoder may have either kind of names.
        names = read_header(weights).tensors
        if not is_alone or "encoder.down_blocks.0.resnets.0.conv1.weight" not in names:
            num_blocks = len(vae.channels)
            sources = _prefixed(autoencoder_prefix(weights), lambda name: autoencoder_source(name, num_blocks))
            return _fill(vae, weights, dtype, device, sources=sources)
    return _fill(vae, weights, dtype, device, rename=_today_s_attention_name)


def lay_out_vae(folder: Path) -> AutoencoderKL | AutoencoderTiny:
    """The autoencoder without its weights.

    Raises:
        ModelLoadError: as in `load_unet`.
    """
    path = folder / "vae" / "config.json"
    config = read_configs(folder).vae
    vae_class = AutoencoderKL if config["_class_name"] == "AutoencoderKL" else AutoencoderTiny
    return _build(path, lambda: vae_class(Options(path, config)))


def load_text_encoder(
    folder: Path, dtype: torch.dtype, device: torch.device, part: TextEncoderPart = "text_encoder"
) -> TextEncoder:
    """A text encoder: frozen, in eval mode.

    Raises:
        ModelLoadError: as in `load_unet`.
    """
    path = folder / part / "config.json"
    config = _text_encoder_config(folder, part)
    encoder = _build(path, lambda: TextEncoder(Options(path, config)))

    def rename(name: str) -> str | None:
        if name.endswith("embeddings.position_ids"):
            return None  # saved by old versions; it only counts from 0 to 76
        # The prefix has come and gone with transformers' versions; files of both kinds are about.
        return name.removeprefix("text_model.")

    weights = find_weights(folder, part, prefer_fp16=dtype == torch.float16)
    configs = read_configs(folder)
    changes = lora_changes(configs.side.loras, part, ("unet", *configs.text_encoders), encoder.state_dict())
    sources = None
    if configs.single is not None:
        prefix = configs.single.prefixes[part]
        if part in configs.single.open_clip:
            sources = _prefixed(prefix, open_clip_source)
        elif f"{prefix}text_model.final_layer_norm.weight" in read_header(weights).tensors:
            sources = _prefixed(f"{prefix}text_model.", Source)
        else:
            sources = _prefixed(prefix, Source)
    return _fill(encoder, weights, dtype, device, rename=rename, sources=sources, changes=changes)


def _text_encoder_config(folder: Path, part: TextEncoderPart) -> Mapping[str, Any]:
    config = getattr(read_configs(folder), part)
    if config is None:
        raise ModelLoadError(f"{folder} has no {part}")
    return dict(config)


def load_scheduler_config(folder: Path) -> Mapping[str, object]:
    """The noise schedule the model was trained with, as `scheduler_config.json` has it.

    Raises:
        ModelLoadError: the file is missing or damaged, or the model predicts neither noise nor velocity.
    """
    return read_configs(folder).scheduler


def _build(config: Path, build: Callable[[], ModuleT]) -> ModuleT:
    """Lay a module out without memory for its weights."""
    try:
        with torch.device("meta"):
            return build()
    except ModelLoadError:
        raise
    except Exception as error:  # a wrong value surfaces as whatever torch trips over
        raise ModelLoadError(f"{config} does not describe a valid model: {_first_line(error)}") from error


def _fill(
    module: ModuleT,
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    rename: Callable[[str], str | None] = lambda name: name,
    sources: Callable[[str], Source] | None = None,
    changes: Mapping[str, Sequence[Change]] = MappingProxyType({}),
) -> ModuleT:
    """Give a module on the meta device its weights.

    Args:
        module: On the meta device; changed in place.
        path: A safetensors file.
        dtype: Of the weights in memory, whatever the file's.
        device: Where they go.
        rename: A name in the file -> its name in the module; None: not needed. Nothing may be left over.
        sources: The other way round, for a file that holds more: a name in the module -> where it is in the file.
        changes: A name in the module -> what LoRAs add to it.
    """
    file, expected = WeightsFile(path), module.state_dict()
    if sources is None:
        found = {name: Source(source) for name, source in _match(path, expected, file.names, rename).items()}
    else:
        found = {name: sources(name) for name in expected}
        _check_there(path, {source.name for source in found.values()} - file.names)

    def read(name: str) -> torch.Tensor:
        return _shaped(path, name, _taken(file.tensor(found[name].name), found[name]), expected[name])

    for name in expected:
        read(name)  # a file that does not fit is refused before memory is taken
    _give_memory(module, dtype, device)
    for name, target in module.state_dict().items():
        # Converted where it ends up, as a GPU does it faster. Always a copy: a tensor left in the mapping would
        # change, or kill the process, when somebody overwrites the file while it is served.
        tensor = read(name).to(device)
        target.copy_(changed(tensor, changes[name]) if name in changes else tensor)
    return module.eval().requires_grad_(False)  # noqa: FBT003 - torch's own signature


def _prefixed(prefix: str, sources: Callable[[str], Source]) -> Callable[[str], Source]:
    """The same in a file where each name has something before it."""

    def source_of(name: str) -> Source:
        source = sources(name)
        return replace(source, name=prefix + source.name)

    return source_of


def _taken(tensor: torch.Tensor, source: Source) -> torch.Tensor:
    """What of a tensor in a file is meant."""
    if source.third is not None:
        tensor = tensor.chunk(3)[source.third]
    return tensor.T if source.is_transposed else tensor


def _check_there(path: Path, missing: Iterable[str]) -> None:
    names = sorted(missing)
    if names:
        shown = ", ".join(names[:_MOST_KEYS_NAMED])
        more = f" and {len(names) - _MOST_KEYS_NAMED} more" if len(names) > _MOST_KEYS_NAMED else ""
        raise ModelLoadError(f"{path} lacks tensors that a model of its family has: {shown}{more}")


def _give_memory(module: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Move parameters from the meta device to memory, with whatever numbers lie there.

    One by one: `to_empty`, and a change of dtype on the meta device, import torch's compiler, for half a second.
    """
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            memory_format = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
            empty = torch.empty(parameter.shape, dtype=dtype, device=device, memory_format=memory_format)
            setattr(part, name, torch.nn.Parameter(empty, requires_grad=False))


def _match(
    path: Path, expected: Mapping[str, torch.Tensor], stored: Iterable[str], rename: Callable[[str], str | None]
) -> dict[str, str]:
    """For each tensor that the module expects its name in the file: one to one, with nothing left over."""
    sources: dict[str, str] = {}
    for source in stored:
        name = rename(source)
        if name is None:
            continue
        if name in sources:
            raise ModelLoadError(f"{path} has {name} twice, also as {source}")
        sources[name] = source
    for problem, names in (
        ("lacks tensors that its config.json asks for", expected.keys() - sources.keys()),
        ("has tensors that its config.json does not know", sources.keys() - expected.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:_MOST_KEYS_NAMED])
            more = f" and {len(names) - _MOST_KEYS_NAMED} more" if len(names) > _MOST_KEYS_NAMED else ""
            raise ModelLoadError(f"{path} {problem}: {shown}{more}")
    return sources


def _shaped(path: Path, name: str, tensor: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise ModelLoadError(f"{path}: {name} must hold floating-point numbers, not {tensor.dtype}")
    if tensor.shape == (*expected.shape, 1, 1):
        tensor = tensor[..., 0, 0]  # attention once was a 1x1 convolution
    if tensor.shape != expected.shape:
        raise ModelLoadError(f"{path}: {name} must have the shape {[*expected.shape]}, not {[*tensor.shape]}")
    return tensor


_OLD_ATTENTION_NAME = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_TODAY_S = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _today_s_attention_name(name: str) -> str:
    """Autoencoders saved before diffusers 0.13, Stable Diffusion 1.x among them, have other names for attention."""
    old = _OLD_ATTENTION_NAME.fullmatch(name)
    return f"{old[1]}.{_TODAY_S[old[2]]}.{old[3]}" if old else name


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
