"""The command `dream`: a prompt in, picture files out, with a progress bar; Ctrl+C cancels the job.

`dream info FILE`, `dream upscale FILE` and `dream --models` are in `dream_files.py`.

Exit codes:
    0    drawn and saved
    1    not drawn: the job failed, the server made a mistake, or the file could not be written
    2    the command or the request is wrong
    3    the server is unavailable or busy, this key's limit is reached, or `--timeout` is over: try again later
    4    not authorised
    130  interrupted; the job was cancelled
"""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import io
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Final, Literal, NoReturn, cast

from stamina.instrumentation import set_on_retry_hooks

from semantic_bit_client.calls import new_key
from semantic_bit_client.client import Client, Job
from semantic_bit_client.drawing import JobDrawing
from semantic_bit_client.dream_files import FILE_COMMANDS, add_file_arguments, list_of_models
from semantic_bit_client.errors import (
    InvalidRequest,
    NotAuthorised,
    RateLimited,
    SemanticBitError,
    ServerUnavailable,
    TookTooLong,
)
from semantic_bit_client.models import Picture
from semantic_bit_client.progress_bar import ProgressBar
from semantic_bit_client.retries import Retries

__all__ = ["run"]

_FAILED, _WRONG, _LATER, _NOT_AUTHORISED, _INTERRUPTED = 1, 2, 3, 4, 130

_EXIT_CODES: Final = (
    (InvalidRequest, _WRONG),
    (NotAuthorised, _NOT_AUTHORISED),
    ((ServerUnavailable, RateLimited, TookTooLong), _LATER),
    (SemanticBitError, _FAILED),
)

_EPILOG: Final = (
    "SEMANTIC_BIT_URL is the server's URL, SEMANTIC_BIT_API_KEY its API key, if it needs one. "
    "Exit codes: 0 drawn, 1 failed, 2 wrong request, 3 try again later, 4 not authorised, 130 interrupted."
)

_DEFAULT_URL: Final = "http://127.0.0.1:8000"

_FORMATS: Final = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}

_STANDARD_OUTPUT: Final = Path("-")

_CANCEL_RETRIES: Final = Retries(attempts=2, time_s=5.0)
"""For cancelling after Ctrl+C: the user does not wait for long."""

_MOST_LOOKED_AT: Final = 100
"""Files: as many pictures no server draws at once, and it is the server that says so."""

_LIST_MODELS: Final = "--models"

_AS_GIVEN: Final = "semantic_bit_client.as_given"


def run(arguments: list[str] | None = None) -> NoReturn:
    """Draw what the command line asks for, and exit."""
    try:
        # A retry is no event for the one line that this command shows, nor for the JSON that it prints.
        set_on_retry_hooks(())
        codecs.register_error(_AS_GIVEN, _as_given)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors=_AS_GIVEN)
        words = sys.argv[1:] if arguments is None else arguments
        if _LIST_MODELS in words:
            sys.exit(_models_listed([word for word in words if word != _LIST_MODELS]))
        # One word alone is a prompt.
        is_file_command = len(words) > 1 and words[0] in FILE_COMMANDS
        sys.exit(_done(words[0], words[1:]) if is_file_command else _drawn(_parsed(words)))
    except SemanticBitError as error:
        _print_error(error)
        sys.exit(next(code for kinds, code in _EXIT_CODES if isinstance(error, kinds)))
    except OSError as error:
        sys.exit(_failed(str(error), _FAILED))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _done(command: str, words: list[str]) -> int:
    """Do a command with a file."""
    parser = argparse.ArgumentParser(prog=f"dream {command}", epilog=_EPILOG)
    add_file_arguments(parser, command)
    if command == "upscale":
        _add_output_arguments(parser, "png, webp or jpg (default: FILE-large.png)")
    _add_common_arguments(parser)
    options = parser.parse_args(words)
    if command == "upscale":
        if options.output == _STANDARD_OUTPUT:
            parser.error("-o must be a file")
        options.output_format = _format(options.output)
    try:
        with _client(options, Retries()) as client:
            _print(FILE_COMMANDS[command](client, options))
    except ValueError as error:
        return _failed(str(error), _WRONG)
    return 0


def _models_listed(words: list[str]) -> int:
    """Print the models of the server."""
    parser = argparse.ArgumentParser(prog=f"dream {_LIST_MODELS}", epilog=_EPILOG)
    _add_common_arguments(parser)
    options = parser.parse_args(words)
    try:
        with _client(options, Retries()) as client:
            _print(list_of_models(client, as_json=options.json))
    except ValueError as error:
        return _failed(str(error), _WRONG)
    return 0


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not any(word.startswith("-") for word in rest):
        parser.error(
            f"put the prompt in quotes: dream {json.dumps(' '.join([options.prompt, *rest]), ensure_ascii=False)}"
        )
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if options.output == _STANDARD_OUTPUT and (options.count != 1 or options.json or sys.stdout.isatty()):
        parser.error("-o - writes one picture to standard output: without --count and --json, and not to a terminal")
    if options.mask is not None and options.image is None:
        parser.error("--mask needs --image")
    for file in (options.image, options.mask):
        if file is not None and not (file.is_file() and file.stat().st_size):
            parser.error(f"{file} is not a file, or empty")
    return options


def _drawn(options: argparse.Namespace) -> int:
    folder = (options.output or Path("file")).absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        # Before it is drawn, not after.
        return _failed(f"folder {folder} does not exist or is not writable", _WRONG)
    for number in range(1, min(options.count, _MOST_LOOKED_AT) + 1):
        if options.output and (file := _numbered(options.output, number, options.count)).is_dir():
            return _failed(f"{file} is a folder", _WRONG)
    try:
        client = _client(options, Retries())
    except ValueError as error:
        return _failed(str(error), _WRONG)
    key, bar = new_key(), ProgressBar()
    job: Job | None = None
    try:
        with client:
            job = client.submit(options.prompt, idempotency_key=key, **_drawing(options))
            for progress in job.events(timeout_s=options.timeout):
                bar.show(progress)
            job.refresh()
            pictures = job.images()
    except KeyboardInterrupt:
        bar.clear()
        _say(_cancelled(options, key, job))
        return _INTERRUPTED
    except TookTooLong as error:
        bar.clear()
        detail = f"not finished within {options.timeout:g} s; {_cancelled(options, key, job)}"
        raise TookTooLong(detail, job_id=error.job_id) from error
    finally:
        bar.clear()
    _save(options, job, pictures)
    return 0


def _cancelled(options: argparse.Namespace, key: str, job: Job | None) -> str:
    """Cancel the job, also one whose acceptance has not been heard of: under the same key it is the same job.

    Returns:
        What has become of it, in words.
    """
    try:
        with _client(options, _CANCEL_RETRIES) as client:
            known = job or client.submit(options.prompt, idempotency_key=key, **_drawing(options))
            state = client.job(known.id).cancel()
    except SemanticBitError as error:
        return f"it could not be cancelled: {error.detail}"
    return "cancelled" if state.status == "cancelled" else f"too late to cancel: it is {state.status}"


def _save(options: argparse.Namespace, job: Job, pictures: list[Picture]) -> None:
    if job.state.prompt_truncated:
        _say("the prompt was cut: it is longer than the model can read, and its end had no effect")
    if options.output == _STANDARD_OUTPUT:
        sys.stdout.buffer.write(pictures[0].bytes)
        sys.stdout.buffer.flush()
        _say(f"seed {pictures[0].seed}")
        return
    files = [_file(options.output, picture, number, len(pictures)) for number, picture in enumerate(pictures, start=1)]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    state = job.state
    if not options.json:
        for picture, file in zip(pictures, files, strict=True):
            _print(f"{file} (seed {picture.seed})")
        return
    report = {
        "job_id": job.id,
        "model": state.model,
        "work_units": state.work_units,
        "timings": None if state.timings is None else dataclasses.asdict(state.timings),
        "prompt_truncated": state.prompt_truncated,
        "images": [{"file": str(file), "seed": picture.seed} for picture, file in zip(pictures, files, strict=True)],
    }
    _print(json.dumps(report))


def _file(output: Path | None, picture: Picture, number: int, count: int) -> Path:
    return Path(f"dream-{picture.seed}.png") if output is None else _numbered(output, number, count)


def _numbered(output: Path, number: int, count: int) -> Path:
    return output if count == 1 else output.with_stem(f"{output.stem}-{number}")


def _client(options: argparse.Namespace, retries: Retries) -> Client:
    return Client(options.url, os.environ.get("SEMANTIC_BIT_API_KEY") or None, retries=retries)


def _drawing(options: argparse.Namespace) -> JobDrawing:
    width, height = options.size or (None, None)
    return {
        "negative_prompt": options.negative,
        "model": options.model,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "width": width,
        "height": height,
        "seed": options.seed,
        "sampler": options.sampler,
        "num_images": options.count,
        "output_format": _format(options.output),
        "image": options.image,
        "mask": options.mask,
        "strength": options.strength,
        "hires": None if options.hires is None else {"scale": options.hires},
    }


def _format(output: Path | None) -> Literal["png", "webp", "jpeg"]:
    name = "png" if output in {None, _STANDARD_OUTPUT} else _FORMATS[output.suffix.lower()]
    return cast(Literal["png", "webp", "jpeg"], name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dream",
        description="Draw pictures with a Semantic Bit GPU server.",
        epilog=f"`dream info FILE` says how a picture was drawn, `dream upscale FILE` enlarges one. {_EPILOG}",
    )
    parser.add_argument("prompt", help="what to draw, in quotes")
    _add_output_arguments(parser, "png, webp or jpg; - is standard output, as png (default: dream-SEED.png)")
    parser.add_argument("--negative", metavar="TEXT", help="what not to draw")
    parser.add_argument("--seed", type=int, help="same seed and settings, same picture (default: random)")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--guidance", type=float, help="how closely to follow the prompt")
    parser.add_argument("--size", type=_size, metavar="SIZE", help="pixels: 512, or 768x512 (width x height)")
    parser.add_argument("--model", metavar="NAME", help="which of the server's models draws (default: its own)")
    parser.add_argument(_LIST_MODELS, action="store_true", help="list the server's models, and draw nothing")
    parser.add_argument("--sampler", metavar="NAME", help="such as 'Euler a' or 'DPM++ 2M Karras'")
    parser.add_argument("--count", type=int, default=1, help="pictures: FILE becomes FILE-1, FILE-2, ... (default: 1)")
    parser.add_argument("--image", type=Path, metavar="FILE", help="draw over this picture (png, jpg or webp)")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="change only what is white here; needs --image")
    parser.add_argument("--strength", type=float, help="how much of --image changes, 0 to 1 (default: 0.75)")
    parser.add_argument(
        "--hires", type=float, nargs="?", const=2.0, metavar="SCALE", help="enlarge and draw on, 1 to 4 (default: 2)"
    )
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="cancel the job if not done by then")
    _add_common_arguments(parser)
    return parser


def _add_output_arguments(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument("-o", "--output", type=_picture_file, metavar="FILE", help=where)


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    url = os.environ.get("SEMANTIC_BIT_URL") or _DEFAULT_URL
    parser.add_argument("--json", action="store_true", help="print one JSON object about what was done")
    parser.add_argument("--url", default=url, help=f"the server (default: {_DEFAULT_URL}, or SEMANTIC_BIT_URL)")


def _picture_file(text: str) -> Path:
    path = Path(text)
    if path != _STANDARD_OUTPUT and path.suffix.lower() not in _FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r} should end in {', '.join(_FORMATS)}")
    return path


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number of seconds above 0")
    return seconds


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} should be like 512 or 768x512")
    return int(found[1]), int(found[2] or found[1])


def _print_error(error: SemanticBitError) -> None:
    after = "" if error.retry_after_s is None else f" (try again in {error.retry_after_s:.0f} s)"
    under = f" (request {error.request_id})" if error.request_id and error.status and error.status >= 500 else ""
    _say(f"error: {error.detail}{after}{under}")


def _failed(reason: str, code: int) -> int:
    _say(f"error: {reason}")
    return code


def _say(line: str) -> None:
    sys.stderr.write(f"dream: {line}\n")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _as_given(error: UnicodeError) -> tuple[str | bytes, int]:
    """How standard output takes a file's name: bytes where they are no text, escapes for letters it does not have."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)
