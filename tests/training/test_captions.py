"""Scenes, captions, labels, tokens."""

import re
from itertools import product
from random import Random

from training.dreamlet.captions import caption_for, draw_example, full_caption
from training.dreamlet.labels import IGNORED, JUDGED, SCHOOLED, judged_labels, schooled_labels
from training.dreamlet.scenes import (
    COLOUR_NAMES,
    PLACE_NAMES,
    SUBJECT_NAMES,
    Said,
    Scene,
    Subject,
    draw_held_out_scene,
    is_held_out,
)
from training.dreamlet.tokenizer import MAX_TOKENS, token_ids
from training.dreamlet.vocabulary import COLOUR_WORDS, PLACES, SUBJECTS, TIMES


def has_one_of(words, caption):
    return any(re.search(rf"\b{re.escape(word)}\b", caption) for word in words)


def test_a_full_caption_names_what_its_labels_say():
    random = Random(1)
    for _ in range(300):
        scene = draw_held_out_scene(random)
        caption = full_caption(scene, random)
        (subject, colour, place, time), *_ = judged_labels(scene)
        assert has_one_of(SUBJECTS[JUDGED["subject"][subject]].words, caption)
        assert has_one_of(COLOUR_WORDS[JUDGED["colour"][colour]], caption)
        assert has_one_of(PLACES[JUDGED["place"][place]].phrases, caption)
        if scene.has_weather:
            when = TIMES[JUDGED["time"][time]]
            assert has_one_of((*when.phrases, *when.alone), caption)
        else:
            assert time == IGNORED


def test_captions_never_name_another_subject_than_the_scenes():
    random = Random(2)
    for _ in range(600):
        scene, caption = draw_example(random)
        shown = {subject.kind for subject in scene.subjects}
        for kind, noun in SUBJECTS.items():
            # "tree" and "star" are also in the names of places.
            if kind not in shown and kind not in ("tree", "star"):
                assert not has_one_of(noun.words, caption), (scene, caption)


def test_left_and_right_are_what_the_caption_says():
    scene = Scene((Subject("cat", "red"), Subject("dog", "blue")), "yard", "day")
    said = Said(2, colour=True, place=True, time=False, style=False)
    random = Random(3)
    captions = [caption_for(scene, said, random) for _ in range(300)]
    assert any("right of" in caption for caption in captions)
    for caption in captions:
        if match := re.search(r"(red|crimson|scarlet) .* (?:to the )?(left|right) of .*(blue|navy)", caption):
            assert match[2] == "left", caption
        if match := re.search(r"(blue|navy) .* (?:to the )?(left|right) of .*(red|crimson|scarlet)", caption):
            assert match[2] == "right", caption


def test_training_never_shows_a_held_out_trio_but_every_pair():
    random = Random(4)
    for _ in range(3000):
        scene, _ = draw_example(random)
        assert not any(is_held_out(subject.kind, subject.colour, scene.place) for subject in scene.subjects)
    for kind, colour in product(SUBJECT_NAMES, COLOUR_NAMES):
        assert any(not is_held_out(kind, colour, place) for place in PLACE_NAMES)
    for kind, place in product(SUBJECT_NAMES, PLACE_NAMES):
        assert any(not is_held_out(kind, colour, place) for colour in COLOUR_NAMES)
    for colour, place in product(COLOUR_NAMES, PLACE_NAMES):
        assert any(not is_held_out(kind, colour, place) for kind in SUBJECT_NAMES)


def test_about_one_trio_in_eleven_is_held_out():
    trios = list(product(SUBJECT_NAMES, COLOUR_NAMES, PLACE_NAMES))
    assert 0.08 < sum(is_held_out(*trio) for trio in trios) / len(trios) < 0.1


def test_schooling_labels_are_classes_of_their_questions():
    random = Random(5)
    for _ in range(300):
        scene, _ = draw_example(random)
        labels = schooled_labels(scene)
        assert len(labels) == len(SCHOOLED)
        assert all(0 <= label < len(names) for label, names in zip(labels, SCHOOLED.values(), strict=True))


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("a cat on a mat", "ünïcode 猫 🎉", "xyzzy" * 3, "a\u0000b"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids[1:-1]
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_words_of_the_vocabulary_are_one_token_each(tokenizer):
    for word in ("cat", "lighthouse", "turquoise", "mountains"):
        assert len(tokenizer(word)["input_ids"]) == 3


def test_captions_are_padded_as_pipelines_pad_them(tokenizer):
    (short, long) = token_ids(tokenizer, ["a cat", "a red cat " * 60])
    assert len(short) == len(long) == MAX_TOKENS
    assert short[0] == tokenizer.bos_token_id
    assert set(short[4:]) == {tokenizer.eos_token_id}
    assert long[-1] == tokenizer.eos_token_id
