"""The command `dream`: files and one line out, exit codes as documented, Ctrl+C cancels."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from semantic_bit_client import Progress, dream
from semantic_bit_client.progress_bar import ProgressBar, line_of

from engine.errors import NotFiniteError
from engine.models.random_model import make_random_model
from server.worker.fake_executor import FakeExecutor
from tests.client.proxy import Fault, proxied

CLIENT = Path(__file__).parents[2] / "client"
SMALL = ["--steps", "2", "--size", "64"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: `run(url, "a cat")` -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMANTIC_BIT_API_KEY", raising=False)
    monkeypatch.setattr(dream, "set_on_retry_hooks", lambda hooks: None)  # it holds for the whole process

    def run(url, *arguments):
        monkeypatch.setenv("SEMANTIC_BIT_URL", url)
        with pytest.raises(SystemExit) as ended:
            dream.run(list(arguments))
        captured = capsys.readouterr()
        # The server's log lines come from another thread of this process.
        own = [line for line in captured.out.splitlines() if not line.startswith(("Listening", "20"))]
        return ended.value.code, "\n".join(own), captured.err

    return run


def test_it_draws_a_picture_and_says_where_it_is(server, run):
    code, out, err = run(server.url, "a cat on a mat", "-o", "cat.png", "--seed", "7", *SMALL)
    assert (code, out, err) == (0, "cat.png (seed 7)", "")
    assert Path("cat.png").read_bytes().startswith(PNG)


def test_it_hands_on_every_wish(server, run):
    wishes = ["--negative", "snow", "--seed", "3", "--steps", "4", "--size", "128x64", "--sampler", "euler a"]
    assert run(server.url, "a cat", "-o", "cat.webp", "--guidance", "2", "--count", "2", *wishes)[0] == 0
    params = server.executor.started[-1].params
    assert (params.prompt, params.negative_prompt, params.num_inference_steps) == ("a cat", "snow", 4)
    assert (params.width, params.height, params.seed, params.num_images) == (128, 64, 3, 2)
    assert (params.sampler, params.guidance_scale) == ("Euler a", 2)
    assert sorted(path.name for path in Path().iterdir()) == ["cat-1.webp", "cat-2.webp"]


def test_the_models_are_listed_and_one_is_chosen(serve, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_random_model(folder / "quick", seed=1)
    server = serve(FakeExecutor(), models_dir=folder, openai_model_aliases=("gpt-image-1",))
    code, out, _ = run(server.url, "--models")
    assert code == 0
    assert [line.partition(" (")[0] for line in out.splitlines()] == ["fake", "quick"]  # no aliases
    assert out.splitlines()[0].endswith(", default)")
    code, out, _ = run(server.url, "--models", "--json")
    assert [(model["id"], model["width"]) for model in json.loads(out)] == [("fake", 512), ("quick", 64)]
    assert run(server.url, "a cat", "--model", "quick", "--steps", "2", "--seed", "1")[0] == 0
    assert (server.executor.started[-1].params.model, server.executor.started[-1].params.width) == ("quick", 64)
    code, _, err = run(server.url, "a cat", "--model", "slow")
    assert code == 2
    assert "model must be one of the names" in err
    assert run(server.url, "--models", "a cat")[0] == 2


def test_without_a_name_the_file_is_named_after_its_seed(server, run):
    assert run(server.url, "a cat", "--seed", "5", *SMALL)[:2] == (0, "dream-5.png (seed 5)")
    assert Path("dream-5.png").is_file()


@pytest.mark.parametrize("options", [[], ["-o", "cat.png"]])
def test_a_prompt_without_quotes_is_code_2_and_shown_in_quotes(server, run, options):
    code, out, err = run(server.url, "a", "cat", "on", "a", "mat", *options)
    assert (code, out) == (2, "")
    assert err.endswith('dream: error: put the prompt in quotes: dream "a cat on a mat"\n')


def test_an_unknown_option_is_named(server, run):
    code, _, err = run(server.url, "a cat", "--colour", "red")
    assert code == 2
    assert "unknown arguments: --colour red" in err


def test_a_prompt_that_was_cut_is_named(server, run):
    code, out, err = run(server.url, "a cat " * 300, "-o", "cat.png", "--json", *SMALL)
    assert code == 0
    assert json.loads(out)["prompt_truncated"] is True
    assert err == "dream: the prompt was cut: it is longer than the model can read, and its end had no effect\n"


def test_a_dash_is_standard_output(server, tmp_path):
    command = [sys.executable, "-m", "semantic_bit_client", "a cat", "-o", "-", "--seed", "7", *SMALL]
    environment = os.environ | {"PYTHONPATH": str(CLIENT), "SEMANTIC_BIT_URL": server.url}
    drawn = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=60)
    assert (drawn.returncode, drawn.stderr) == (0, b"dream: seed 7\n")
    assert drawn.stdout.startswith(PNG)
    assert drawn.stdout.endswith(b"IEND\xaeB`\x82")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--count", "2"], ["--json"]])
def test_standard_output_takes_one_picture_and_nothing_else(server, run, options):
    before = len(server.executor.started)
    code, out, err = run(server.url, "a cat", "-o", "-", *options)
    assert (code, out) == (2, "")
    assert "-o - writes one picture to standard output" in err
    assert len(server.executor.started) == before


def test_json_tells_programs_all_about_it(server, run):
    code, out, _ = run(server.url, "a cat", "--json", "--count", "2", "--seed", "5", "-o", "cat.jpg", *SMALL)
    told = json.loads(out)
    assert code == 0
    assert told["images"] == [{"file": "cat-1.jpg", "seed": 5}, {"file": "cat-2.jpg", "seed": 6}]
    assert told["model"] == "fake"
    assert told["work_units"] > 0
    assert told["timings"].keys() == {"queue_s", "encode_s", "denoise_s", "decode_s", "file_s"}
    assert re.fullmatch("[0-9a-f]{16}", told["job_id"])


def test_the_key_comes_from_the_environment_and_is_never_shown(server, run, monkeypatch):
    key = "sb_live_12345678_secret"
    with proxied(server.url, [Fault("500")]) as proxy:
        code, out, err = (monkeypatch.setenv("SEMANTIC_BIT_API_KEY", key), run(proxy.url, "a cat", *SMALL))[1]
        assert proxy.seen[0].headers["authorization"] == f"Bearer {key}"
    assert code == 1
    assert key not in out + err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a cat", "-o", "cat.gif"], "should end in"),
        (["a cat", "--size", "big"], "should be like 512"),
        (["a cat", "--steps", "0"], "num_inference_steps must be"),
        ([" "], "prompt must not be empty"),
        (["a cat", "-o", "nowhere/cat.png"], "does not exist or is not writable"),
        (["a cat", "--url", "nowhere"], "base_url must be like"),
        (["a cat", "--timeout", "0"], "'0' should be a number of seconds above 0"),
        (["a cat", "--timeout=-1"], "'-1' should be a number of seconds above 0"),
        (["a cat", "--timeout", "nan"], "'nan' should be a number of seconds above 0"),
        (["a cat", "--timeout", "inf"], "'inf' should be a number of seconds above 0"),
        (["a cat", "--timeout", "soon"], "'soon' should be a number of seconds above 0"),
        ([], "prompt"),
    ],
)
def test_a_wrong_wish_is_code_2_with_a_reason(server, run, arguments, reason):
    code, out, err = run(server.url, *arguments)
    assert (code, out) == (2, "")
    assert reason in err


def test_a_folder_that_may_not_be_written_to_is_found_before_anything_is_drawn(server, run, monkeypatch):
    before = len(server.executor.started)
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write to any
    assert run(server.url, "a cat")[0] == 2
    assert len(server.executor.started) == before


@pytest.mark.parametrize(("count", "folder"), [("1", "cat.png"), ("2", "cat-2.png")])
def test_a_folder_where_a_picture_should_be_is_found_before_anything_is_drawn(server, run, tmp_path, count, folder):
    (tmp_path / folder).mkdir()
    before = len(server.executor.started)
    code, out, err = run(server.url, "a cat", "-o", "cat.png", "--count", count, *SMALL)
    assert (code, out, err) == (2, "", f"dream: error: {folder} is a folder\n")
    assert len(server.executor.started) == before


def test_a_job_that_fails_is_code_1(server, run):
    server.call(server.executor.fail_next, NotFiniteError("numbers that are no picture"))
    code, _, err = run(server.url, "a cat", *SMALL)
    assert code == 1
    assert err == "dream: error: numbers that are no picture\n"


@pytest.mark.parametrize(("status", "expected"), [("429", 3), ("503", 3), ("500", 1)])
def test_the_exit_code_says_whether_to_try_again_later(server, run, monkeypatch, status, expected):
    monkeypatch.setattr(dream, "Retries", lambda: dream._CANCEL_RETRIES)
    with proxied(server.url, lambda seen: Fault(status, retry_after_s=60)) as proxy:
        code, _, err = run(proxy.url, "a cat")
    assert code == expected
    assert err.startswith("dream: error: the answer was ")
    assert err.count("\n") == 1


def test_nobody_home_is_code_3(run, monkeypatch):
    monkeypatch.setattr(dream, "Retries", lambda: dream._CANCEL_RETRIES)
    assert run("http://127.0.0.1:9", "a cat")[0] == 3


def test_not_authorised_is_code_4(run, monkeypatch):
    def refuse(wishes):
        raise dream.NotAuthorised("no key")

    monkeypatch.setattr(dream, "_drawn", refuse)
    assert run("http://127.0.0.1:9", "a cat")[::2] == (4, "dream: error: no key\n")


def test_a_timeout_is_code_3_and_cancels(serve, run):
    running = serve(FakeExecutor(step_s=0.1))
    code, _, err = run(running.url, "a cat", "--timeout", "0.4")
    assert (code, err) == (3, "dream: error: not finished within 0.4 s; cancelled\n")
    assert running.executor.images_in_flight == 0


def test_a_timeout_never_claims_to_have_cancelled_what_it_could_not(serve, run, monkeypatch):
    running = serve(FakeExecutor(step_s=0.1))

    def refuse(job):
        raise dream.NotAuthorised("no key")

    monkeypatch.setattr(dream.Job, "cancel", refuse)
    code, _, err = run(running.url, "a cat", "--timeout", "0.4")
    assert (code, err) == (3, "dream: error: not finished within 0.4 s; it could not be cancelled: no key\n")


def test_programs_get_nothing_but_the_json(server, tmp_path):
    """
    Neither control characters nor what libraries log of the tries: there is no terminal, and there is a structlog.
    """
    with proxied(server.url, [Fault("503"), Fault("reset")]) as proxy:
        command = started("a cat", "--json", "-o", os.fsencode(tmp_path) + b"/c\xe4t\xff.png", *SMALL, url=proxy.url)
        out, err = command.communicate(timeout=15)
    assert (command.returncode, err) == (0, "")
    assert out.rstrip("\n").isprintable()
    [image] = json.loads(out)["images"]
    assert Path(image["file"]).read_bytes().startswith(PNG)


def test_a_name_that_is_no_text_is_printed_as_it_was_given(server, tmp_path):
    name = os.fsencode(tmp_path) + b"/c\xff.png"
    command = started("a cat", "-o", name, "--seed", "3", *SMALL, url=server.url, text=False, PYTHONIOENCODING="utf-8")
    assert command.communicate(timeout=15) == (name + b" (seed 3)\n", b"")


def test_a_name_that_standard_output_has_no_letters_for_is_printed_in_escapes(server, tmp_path):
    name = tmp_path / "k\xe4tzchen.png"
    command = started("a cat", "-o", str(name), "--seed", "3", *SMALL, url=server.url, PYTHONIOENCODING="ascii")
    out, err = command.communicate(timeout=15)
    assert (command.returncode, err) == (0, "")
    assert out == f"{tmp_path}/k\\xe4tzchen.png (seed 3)\n"
    assert name.is_file()


def test_ctrl_c_before_anything_is_asked_for_is_code_130(run, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(dream, "_parser", interrupted)
    assert run("http://127.0.0.1:9", "a cat") == (130, "", "")


def started(*arguments, url, text=True, **environment):
    environment |= {"SEMANTIC_BIT_URL": url, "PYTHONPATH": str(Path(dream.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "semantic_bit_client", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=text,
    )


def until(holds):
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_cancels_the_job(serve, tmp_path):
    running = serve(FakeExecutor(step_s=0.2))
    command = started("a cat", "-o", str(tmp_path / "cat.png"), url=running.url)
    until(lambda: running.executor.steps_taken >= 1)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=15)
    assert (command.returncode, out) == (130, "")
    assert err == "dream: cancelled\n"
    until(lambda: running.executor.images_in_flight == 0)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_also_cancels_a_job_whose_acceptance_was_not_heard_of(serve, tmp_path):
    running = serve(FakeExecutor(step_s=0.2))
    with proxied(running.url, [Fault("late", 30)]) as proxy:
        command = started("a cat", "-o", str(tmp_path / "cat.png"), url=proxy.url)
        until(lambda: running.executor.steps_taken >= 1)
        command.send_signal(signal.SIGINT)
        assert command.communicate(timeout=15)[1] == "dream: cancelled\n"
    assert command.returncode == 130
    until(lambda: running.executor.images_in_flight == 0)
    assert len(running.executor.started) == 1


def progress(**told):
    return Progress(**{"job_id": "0" * 16, "status": "running", "attempt": 1, "step": 0, "steps": 28,
                       "queue_position": None, "eta_s": None} | told)  # fmt: skip


def test_the_line_tells_place_steps_and_time():
    assert line_of(progress(status="queued", queue_position=0)) == "waiting, next"
    assert line_of(progress(status="queued", queue_position=3, eta_s=12.3)) == "waiting, 3 ahead, about 12 s"
    assert line_of(progress(step=14, eta_s=300)) == "[############------------] 14/28, about 5 min"
    assert line_of(progress(step=28)) == "[########################] 28/28"
    assert line_of(progress(status="done")) == "done"


def test_the_bar_is_for_terminals_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Terminal(), io.StringIO()
    for target in (terminal, file):
        monkeypatch.setenv("TERM", "xterm")
        bar = ProgressBar(target)
        bar.show(progress(step=14))
        bar.clear()
    assert terminal.getvalue() == "\r\x1b[K[############------------] 14/28\r\x1b[K"
    assert file.getvalue() == ""
    monkeypatch.setenv("TERM", "dumb")
    ProgressBar(dumb := Terminal()).show(progress(step=14))
    assert dumb.getvalue() == ""


def test_the_exit_codes_are_the_documented_ones():
    documented = {int(code) for code in re.findall(r"^ {4}(\d+) ", dream.__doc__, flags=re.MULTILINE)}
    readme = {int(code) for code in re.findall(r"^\| (\d+) \|", (CLIENT / "README.md").read_text(), flags=re.MULTILINE)}
    returned = {dream._FAILED, dream._WRONG, dream._LATER, dream._NOT_AUTHORISED, dream._INTERRUPTED}
    helped = {int(code) for code in re.findall(r"\b(\d+) \w+", dream._parser().epilog)}
    assert documented == readme == helped == returned | {0}
