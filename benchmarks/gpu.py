"""How close to its device's limit the engine draws, and how it compares with diffusers on the same weights.

    python -m benchmarks.gpu --model FOLDER             on a GPU, with any model
    python -m benchmarks.gpu                            on a GPU, with Stable Diffusion 1.5 in random weights
    python -m benchmarks.gpu --device cpu --arch tiny   does it run at all

Timings do not depend on the weights' values.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from benchmarks.common.drawn import Drawn
from benchmarks.common.pairs import Summary, interleave, percentile, ratios
from benchmarks.common.prompts import unread
from benchmarks.common.report import Report
from benchmarks.device.contenders import ChannelsLastPipeline, Contender, draw, fitting, make_requests
from benchmarks.device.facts import Clocks, DeviceFacts
from benchmarks.device.limits import PictureFlop, matrix_rate
from benchmarks.device.parts import StepParts, decode_seconds, file_seconds, rows_curve, step_parts
from engine.engine import Engine
from engine.models.locate import locate
from engine.models.random_model import Architecture, make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.warm_up import measure_rows_per_call

ENGINE, DIFFUSERS = "engine", "diffusers"
UPDATED_IMAGES = 16
"""Pictures in the batch whose update is held against the network's call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for on the command line."""

    device: torch.device
    dtype: torch.dtype
    rows: list[int]
    requests: list[int]
    steps: int
    calls: int
    repeats: int
    matrix_size: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parsed = _parser().parse_args(arguments)
    device = torch.device(parsed.device)
    options = Options(
        device=device,
        dtype=getattr(torch, parsed.dtype or ("float16" if device.type == "cuda" else "float32")),
        rows=parsed.rows,
        requests=parsed.requests,
        steps=parsed.steps,
        calls=parsed.calls,
        repeats=parsed.repeats,
        matrix_size=parsed.matrix_size or (8192 if device.type == "cuda" else 256),
    )
    with _model_folder(parsed.model, parsed.arch) as folder:
        _run(folder, options)


def _run(folder: Path, options: Options) -> None:
    device = options.device
    facts = DeviceFacts.of(device)
    dtype = str(options.dtype).removeprefix("torch.")
    report = Report("gpu", {"device": facts.name, "model": folder.name, "dtype": dtype, "steps": options.steps})
    print(f"driver {facts.driver or '-'}, CUDA {facts.cuda or '-'}, cuDNN {facts.cudnn or '-'}")
    model = StableDiffusion.load(locate(str(folder)), device, options.dtype)
    results: dict[str, object] = {"device": facts, "clocks": {"before": Clocks.now(device)}}

    results["limit"] = limit = _limit(report, folder, model, options)
    results["parts"], rows = _parts(report, model, options)
    engine = Engine(model, rows_per_call=rows)
    pipeline = ChannelsLastPipeline(folder, device=str(device), dtype=dtype)
    results["latency"] = _latency(report, engine, pipeline, rows, limit["floor_s"], options)
    results["throughput"] = _throughput(report, engine, pipeline, limit["floor_s"], options)
    results["clocks"] = {**results["clocks"], "after": Clocks.now(device)}  # type: ignore[dict-item] # made above
    report.finish(results)


def _limit(report: Report, folder: Path, model: StableDiffusion, options: Options) -> dict[str, float]:
    """The least time that a picture's arithmetic could take here."""
    info = model.info
    flop = PictureFlop(folder, height=info.native_height, width=info.native_width)
    rates = {
        dtype: matrix_rate(options.device, dtype, size=options.matrix_size, calls=options.calls)
        for dtype in (options.dtype, torch.bfloat16)
    }
    picture = flop.picture(options.steps)
    floor_s = picture / rates[options.dtype]
    side = options.matrix_size
    report.table(
        "The limit",
        ["what", "value"],
        [
            ["UNet, GFLOP a row", f"{flop.unet_row / 1e9:.4g}"],
            ["decode, GFLOP", f"{flop.decode / 1e9:.5g}"],
            [f"picture of {options.steps} guided steps, TFLOP", f"{picture / 1e12:.4g}"],
            *[[f"{side}x{side} product, {str(dtype)[6:]}, TFLOP/s", f"{r / 1e12:.4g}"] for dtype, r in rates.items()],
            ["floor, ms a picture", f"{floor_s * 1e3:.2f}"],
        ],
    )
    return {
        "unet_row_flop": flop.unet_row,
        "decode_flop": flop.decode,
        "picture_flop": picture,
        "floor_s": floor_s,
        **{f"flop_per_s_{str(dtype)[6:]}": rate for dtype, rate in rates.items()},
    }


def _parts(report: Report, model: StableDiffusion, options: Options) -> tuple[dict[str, object], int]:
    """What each part takes by itself, and how many rows the engine would give a call."""
    curve = rows_curve(model, options.rows, calls=options.calls)
    # Three times: rows that change from one start to the next would change the pictures' bytes.
    chosen = [measure_rows_per_call(model) for _ in range(3)]
    rows = chosen[0]
    report.table(
        f"The network by rows; the engine would choose {', '.join(map(str, chosen))} in three tries",
        ["rows", "ms a call", "rows/s", "a picture alone, s", "peak MB"],
        [
            [
                str(point.rows),
                f"{_ms(point.call_s):.2f}",
                f"{point.rows_per_s:.1f}",
                f"{point.call_s.median * options.steps:.3f}",
                "-" if point.peak_bytes is None else f"{point.peak_bytes / 1e6:.0f}",
            ]
            for point in curve
        ],
    )
    engine = Engine(model, rows_per_call=rows)
    measured = [
        step_parts(engine, num_images=count, rows=2 * count, calls=options.calls)
        for count in sorted({1, max(1, rows // 2), UPDATED_IMAGES})
        if 2 * count <= curve[-1].rows or count == 1
    ]
    report.table(
        "A step of guided pictures that use eight samplers, ms",
        ["pictures", "gather", "network", "scatter", "of it guidance", "update/network", "not network"],
        [_step_row(parts) for parts in measured],
    )
    for parts in measured:
        if parts.num_images == UPDATED_IMAGES:
            report.goal("the update of 16 pictures, as a share of the network's call", parts.update_share, 0.02)
    decode_s, png_s = decode_seconds(model, calls=options.calls), file_seconds(model, calls=options.calls)
    report.table(
        "After the last step, ms", ["what", "value"], [["decode", f"{_ms(decode_s):.2f}"], ["PNG", f"{_ms(png_s):.2f}"]]
    )
    steps = [asdict(parts) | {"update_share": parts.update_share} for parts in measured]
    return {"rows": curve, "chosen_rows": chosen, "steps": steps, "decode_s": decode_s, "png_s": png_s}, rows


def _step_row(parts: StepParts) -> list[str]:
    seconds = (parts.gather_s, parts.unet_s, parts.scatter_s, parts.guidance_s)
    shares = (parts.update_share, parts.engine_share)
    return [str(parts.num_images), *(f"{s * 1e3:.3f}" for s in seconds), *(f"{share:.2%}" for share in shares)]


def _latency(
    report: Report, engine: Engine, pipeline: ChannelsLastPipeline, rows: int, floor_s: float, options: Options
) -> dict[str, Summary]:
    """One request at a time."""
    model = engine.model
    contenders: dict[str, Contender] = {f"{ENGINE}, {rows} rows": lambda requests: draw(engine, requests)}
    if rows != 2:
        two_rows = Engine(model, rows_per_call=2)
        unpadded = Engine(model, rows_per_call=rows, is_reproducible=False)
        contenders[f"{ENGINE}, 2 rows"] = lambda requests: draw(two_rows, requests)
        contenders[f"{ENGINE}, {rows} rows, not padded"] = lambda requests: draw(unpadded, requests)
    contenders[DIFFUSERS] = pipeline.draw_as_list
    rounds = _race(contenders, 1, "one request", engine, options)
    seconds = {name: [drawn.finished_s[0] for drawn in all_drawn] for name, all_drawn in rounds.items()}
    reference = rounds[DIFFUSERS][0].pictures[0].astype(int)
    report.table(
        "One request, s",
        ["who", "seconds", "share of the limit", "of diffusers' time", "largest pixel difference"],
        [
            [
                name,
                f"{Summary.of(values):.3f}",
                f"{floor_s / statistics.median(values):.1%}",
                f"{ratios(values, seconds[DIFFUSERS]):.2f}",
                f"{np.abs(rounds[name][0].pictures[0] - reference).max()}/255",
            ]
            for name, values in seconds.items()
        ],
    )
    first = next(iter(seconds))
    report.goal("one request, of diffusers' time", ratios(seconds[first], seconds[DIFFUSERS]).median, 1.0)
    return {name: Summary.of(values) for name, values in seconds.items()}


def _throughput(
    report: Report, engine: Engine, pipeline: ChannelsLastPipeline, floor_s: float, options: Options
) -> list[dict[str, object]]:
    """Requests that come all at once."""
    contenders = {
        ENGINE: fitting(lambda requests: draw(engine, requests)),
        DIFFUSERS: fitting(pipeline.draw_as_list),
    }
    results: list[dict[str, object]] = []
    table: list[list[str]] = []
    for count in options.requests:
        for name, rounds in _race(contenders, count, f"{count} at once", engine, options).items():
            fitted = [drawn for drawn in rounds if drawn.finished_s]
            if not fitted:
                table.append([str(count), name, *["does not fit"] * 4])
                results.append({"requests": count, "who": name, "fits": False})
                continue
            per_s = statistics.median(count / max(drawn.finished_s) for drawn in fitted)
            mean_s = statistics.median(statistics.mean(drawn.finished_s) for drawn in fitted)
            p95_s = statistics.median(percentile(drawn.finished_s, 95) for drawn in fitted)
            share = floor_s * per_s
            table.append([str(count), name, f"{per_s:.3f}", f"{mean_s:.3f}", f"{p95_s:.3f}", f"{share:.1%}"])
            results.append(
                {"requests": count, "who": name, "fits": True, "pictures_per_s": per_s}
                | {"mean_s": mean_s, "p95_s": p95_s, "share_of_limit": share}
            )
    report.table(
        "Requests at once; diffusers draws them in one call",
        ["requests", "who", "pictures/s", "mean done, s", "p95 done, s", "share of the limit"],
        table,
    )
    return results


def _race(
    contenders: dict[str, Contender], count: int, what: str, engine: Engine, options: Options
) -> dict[str, list[Drawn]]:
    """Let everyone draw the same requests in turn; a short untimed round comes first."""
    info = engine.model.info
    requests, short = (
        make_requests(count, num_inference_steps=steps, height=info.native_height, width=info.native_width)
        for steps in (options.steps, 2)
    )
    for contender in contenders.values():
        contender(short)

    def in_round(contender: Contender) -> Callable[[int], Drawn]:
        return lambda number: contender([replace(params, prompt=unread(params.prompt, number)) for params in requests])

    racers = {name: in_round(contender) for name, contender in contenders.items()}
    return interleave(racers, options.repeats, what)


@contextlib.contextmanager
def _model_folder(model: str | None, arch: Architecture) -> Iterator[Path]:
    """A given model, or one of random weights that is gone afterwards."""
    if model is not None:
        path = locate(model).path
        if path is None:
            raise SystemExit("the fake model needs no device")
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"random-{arch}"
        make_random_model(path, arch=arch, dtype=torch.float16 if arch == "sd15" else torch.float32)
        yield path


def _ms(summary: Summary) -> Summary:
    return Summary(summary.median * 1e3, summary.min * 1e3, summary.max * 1e3)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a cached id (default: random weights, see --arch)")
    parser.add_argument("--arch", choices=get_args(Architecture), default="sd15", help="of random weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), help="default: float16, on a CPU float32"
    )
    parser.add_argument("--rows", type=_numbers, default=[1, 2, 4, 8, 16, 32], help="of the curve (1,2,4,8,16,32)")
    parser.add_argument("--requests", type=_numbers, default=[1, 2, 4, 8, 16, 32], help="at once (1,2,4,8,16,32)")
    parser.add_argument("--steps", type=int, default=28, help="denoising steps of a picture (28)")
    parser.add_argument("--calls", type=int, default=20, help="timed calls of each part (20)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each race (3)")
    parser.add_argument("--matrix-size", type=int, help="default: 8192, on a CPU 256")
    return parser


if __name__ == "__main__":
    main()
