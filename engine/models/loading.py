"""From a model folder to its parts, ready to draw: safetensors only, and no code but ours and the libraries'.

Modules are laid out on the meta device, so that no weight is ever drawn at random just to be overwritten; then every
tensor goes from the memory-mapped file straight to its place, device, dtype and memory format.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.errors import ModelLoadError
from engine.models.layout import PROMPT_TOKENS, check_tokenizer_class, find_weights, read_configs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["load_scheduler_config", "load_text_encoder", "load_tokenizer", "load_unet", "load_vae"]

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

_MOST_KEYS_NAMED: Final = 5


def load_unet(folder: Path, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The denoising network: frozen, in eval mode and channels_last.

    Raises:
        ModelLoadError: a file is missing or damaged, or the model is not served; the message names file and reason.
    """
    config = read_configs(folder).unet
    unet = _build(folder / "unet" / "config.json", lambda: UNet2DConditionModel.from_config(dict(config)))
    path = find_weights(folder, "unet", prefer_fp16=dtype == torch.float16)
    return _fill(unet, path, dtype, device, memory_format=torch.channels_last)


def load_vae(folder: Path, dtype: torch.dtype, device: torch.device) -> AutoencoderKL | AutoencoderTiny:
    """The autoencoder: frozen, in eval mode and channels_last.

    Raises:
        ModelLoadError: as in `load_unet`.
    """
    config = dict(read_configs(folder).vae)
    vae_class = AutoencoderKL if config["_class_name"] == "AutoencoderKL" else AutoencoderTiny
    if vae_class is AutoencoderTiny:
        # AutoencoderTiny writes this into its configuration and warns when it reads it back.
        config.pop("block_out_channels", None)
    vae = _build(folder / "vae" / "config.json", lambda: vae_class.from_config(config))
    path = find_weights(folder, "vae", prefer_fp16=dtype == torch.float16)
    return _fill(vae, path, dtype, device, memory_format=torch.channels_last, rename=_today_s_attention_name)


def load_text_encoder(folder: Path, dtype: torch.dtype, device: torch.device) -> CLIPTextModel:
    """The text encoder: frozen, in eval mode.

    Raises:
        ModelLoadError: as in `load_unet`.
    """
    config = dict(read_configs(folder).text_encoder)
    path = folder / "text_encoder" / "config.json"
    encoder = _build(path, lambda: CLIPTextModel(CLIPTextConfig.from_dict(config)))
    # The prefix has come and gone with the library's versions; files of both kinds are about.
    has_prefix = any(name.startswith("text_model.") for name in encoder.state_dict())

    def rename(name: str) -> str | None:
        if name.endswith("embeddings.position_ids"):
            return None  # saved by old versions; it only counts from 0 to 76
        bare = name.removeprefix("text_model.")
        return f"text_model.{bare}" if has_prefix else bare

    weights = find_weights(folder, "text_encoder", prefer_fp16=dtype == torch.float16)
    return _fill(encoder, weights, dtype, device, memory_format=torch.preserve_format, rename=rename)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer, which pads and truncates to 77 tokens where it is asked to.

    Raises:
        ModelLoadError: a file is missing or damaged, or it knows tokens that the text encoder does not.
    """
    path = folder / "tokenizer"
    text_encoder = read_configs(folder).text_encoder
    check_tokenizer_class(path / "tokenizer_config.json")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare `Exception` for damaged files
        raise ModelLoadError(f"{path} cannot be read: {_first_line(error)}") from error
    vocabulary_size = text_encoder.get("vocab_size", 49408)
    # On a GPU an unknown token is an error after which the whole process must end.
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocabulary_size:
        raise ModelLoadError(f"{path} has the token {largest}, but the text encoder knows only {vocabulary_size}")
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise ModelLoadError(f"{path} has no tokens for the beginning and the end of a prompt")
    # Without the file's own figure the library means "no limit".
    tokenizer.model_max_length = min(tokenizer.model_max_length, PROMPT_TOKENS)
    return tokenizer


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
    except Exception as error:  # a wrong value surfaces as whatever the library's code trips over
        raise ModelLoadError(f"{config} describes no model that can be built: {_first_line(error)}") from error


def _fill(
    module: ModuleT,
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    memory_format: torch.memory_format,
    rename: Callable[[str], str | None] = lambda name: name,
) -> ModuleT:
    """Give a module on the meta device its weights.

    Args:
        module: On the meta device; changed in place.
        path: A safetensors file.
        dtype: Of the weights in memory, whatever the file's.
        device: Where they go.
        memory_format: Of the convolutions' weights.
        rename: A name in the file -> its name in the module; None: not needed.
    """
    weights: dict[str, torch.Tensor] = {}
    expected = module.state_dict()
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            sources = _match(path, expected, file.keys(), rename)
            for name, source in sources.items():
                tensor = _shaped(path, name, file.get_tensor(source), expected[name])
                # Converted where it ends up, as a GPU does it faster. Always a copy: a tensor left in the mapping would
                # change, or kill the process, when somebody overwrites the file while it is served.
                weights[name] = tensor.to(device).to(
                    dtype,
                    copy=True,
                    memory_format=memory_format if tensor.ndim == 4 else torch.preserve_format,
                )
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{path} is damaged or not readable: {_first_line(error)}") from error
    module.load_state_dict(weights, assign=True)
    _fill_position_ids(module, device)
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert not left, f"without weights: {left[:_MOST_KEYS_NAMED]}"  # noqa: S101 - our own mistake, not the file's
    return module.eval().requires_grad_(False)  # noqa: FBT003 - torch's own signature


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


def _fill_position_ids(module: torch.nn.Module, device: torch.device) -> None:
    """Count again what is never saved: the only buffer of this kind in the networks that are served."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta and name.rpartition(".")[2] == "position_ids":
            owner = module.get_submodule(name.rpartition(".")[0])
            owner.position_ids = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
