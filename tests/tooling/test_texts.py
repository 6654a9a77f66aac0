"""`scripts/texts.py` finds every text that people meet, and no error is without advice to the operator."""

from __future__ import annotations

import tomllib

import pytest
import texts

from server.errors import PROBLEMS
from server.problems import _HTTP_CODES

ACTIONS = tomllib.loads((texts.ROOT / texts.ACTIONS).read_text())
PAGE = texts.ROOT / texts.PAGE


def test_every_error_is_listed_with_its_status_code_and_title():
    listed = {(problem.status, problem.code, problem.title) for problem in texts.problems()}
    assert {(str(kind.status), kind.code, kind.title) for kind in {*PROBLEMS.values(), *_HTTP_CODES.values()}} <= listed


def test_every_error_has_advice_and_every_advice_an_error():
    assert texts.markdown(ACTIONS).startswith("# Messages")
    with pytest.raises(ValueError, match="queue_full"):
        texts.markdown({code: text for code, text in ACTIONS.items() if code != "queue_full"})
    with pytest.raises(ValueError, match="of_yesterday"):
        texts.markdown(ACTIONS | {"of_yesterday": "Nothing."})


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        (
            "error",
            "raise InvalidParamsError('eta', f'must be from {least} to 1', eta)",
            "eta must be from {least} to 1",
        ),
        ("error", "return StartError('PORT must be ' 'free')", "PORT must be free"),
        ("log", "_log.warning('the disk is full', why=1)", "the disk is full"),
        ("log", "structlog.get_logger('x').critical('it ends')", "it ends"),
        ("help", "parser.add_argument('--seed', help='draws the same ' + 'again')", "draws the same again"),
        ("metric", "Gauge('jobs', 'Jobs that wait.')", "jobs: Jobs that wait."),
        ("page", "forms.CharField(label='Prompt')", "Prompt"),
        ("other", "WORDS = {'dead': 'It was given up.'}", "It was given up."),
    ],
)
def test_a_text_is_found_by_what_it_is_for(kind, source, expected):
    assert list(texts._of_python(source)) == [(kind, expected)]


def test_a_docstring_and_a_query_are_no_texts():
    assert not list(texts._of_python('"""Not shown to anyone."""\nQ = "SELECT a FROM b WHERE c"'))


def test_a_template_gives_its_words_and_no_markup():
    page = '<p class="a b">Two <b>bold</b> words</p>{% if x %}<img alt="a cat on a mat">{% endif %}<style>p {}</style>'
    assert sorted(texts._of_template(page)) == ["Two bold words", "a cat on a mat"]


def test_a_script_gives_its_sentences():
    assert list(texts._of_script('// "not this one"\nsay("The queue is full"); x = "name";')) == ["The queue is full"]


def test_the_page_is_up_to_date():
    assert texts.main(["--check"]) == 0
