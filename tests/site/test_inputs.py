"""Dreams drawn over a picture: whose it is, what is painted, what it costs, and that its files stay private."""

from __future__ import annotations

import io
import uuid
from decimal import Decimal

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image, PngImagePlugin

from newdreamflow.config.uploads import MAX_FILE_BYTES
from newdreamflow.dreams import advancing, inputs, ledger, services
from newdreamflow.dreams.forms import first_values
from newdreamflow.dreams.growth import DIRECTIONS, grown_size, growth_of
from newdreamflow.dreams.models import Dream
from tests.site.dreaming import done

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(client, user):
    client.force_login(user)
    return client


@pytest.fixture
def before(user):
    """A dream whose picture is drawn over."""
    return done(user, "a cat", width=96, height=64)


def mask_file(size=(96, 64), box=(10, 10, 40, 30), grey=255, **saving):
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    if box:
        image.paste((grey, grey, grey, 255), box)
    file = io.BytesIO()
    image.save(file, "PNG", **saving)
    return file.getvalue()


def form_of(before, mask=None, **changes):
    form = {
        name: value
        for name, value in (first_values() | {"prompt": "a dog", "over": f"{before.uuid}/0"} | changes).items()
        if name not in {"shape", "size"} and value is not None
    }
    if mask is not None:
        form |= {"part": "True", "mask": SimpleUploadedFile("mask.png", mask, "image/png")}
    return form


def files_of(dream):
    folder = f"{dream.folder}/input"
    return sorted(default_storage.listdir(folder)[1]) if default_storage.exists(folder) else []


def advanced_until_finished(dream):
    for _ in range(2000):
        Dream.objects.filter(pk=dream.pk).unfinished().update(next_try_at=dream.created_at)
        advancing.advance(dream_id=dream.pk)
        dream.refresh_from_db()
        if dream.is_finished:
            return dream
    raise AssertionError(dream.trouble)


@pytest.mark.parametrize("is_part", [False, True])
def test_a_dream_is_drawn_over_a_picture_and_costs_what_the_gpu_server_says(
    signed_in, user, before, gpu_server, painter, is_part
):
    left = ledger.balance(user)
    form = form_of(before, mask_file() if is_part else None, strength=0.5)
    assert signed_in.post("/dream/", form).status_code == 302
    dream = Dream.objects.exclude(pk=before.pk).get()
    assert (dream.width, dream.height, dream.strength, dream.has_mask) == (96, 64, 0.5, is_part)
    estimated = dream.work_units
    assert left - ledger.balance(user) == ledger.price_of(estimated) > 0
    advanced_until_finished(dream)
    assert (dream.status, dream.work_units) == ("done", estimated)
    assert left - ledger.balance(user) == dream.cost == ledger.price_of(estimated)
    [job] = painter.started
    assert (job.params.image.width, job.params.image.height, job.params.strength) == (96, 64, 0.5)
    assert (job.params.mask is not None) == is_part
    # A retry, by the same key with the same pictures, is the same job.
    Dream.objects.filter(pk=dream.pk).update(
        status="waiting", finished_at=None, remote_job_id="", lease_token=None, next_try_at=dream.created_at
    )
    dream.refresh_from_db()
    advancing.advance(dream_id=dream.pk)
    assert len(painter.started) == 1
    assert ledger.balance(user) == left - dream.cost


def test_a_form_sent_twice_is_one_dream_and_another_mask_another(signed_in, before, user):
    form = form_of(before) | {"part": "True"}
    pages = []
    for box in ((1, 1, 9, 9), (1, 1, 9, 9), (1, 1, 9, 12)):
        mask = SimpleUploadedFile("mask.png", mask_file(box=box), "image/png")
        pages.append(signed_in.post("/dream/", form | {"mask": mask})["Location"])
    assert pages[0] == pages[1] != pages[2]
    assert Dream.objects.count() == 3
    assert user.ledger.filter(kind="reserve").count() == 3


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        pytest.param(mask_file(size=(96, 65)), "must have the size of the picture, 96 × 64", id="size"),
        pytest.param(mask_file(box=None), "Nothing is marked", id="nothing-marked"),
        pytest.param(mask_file(grey=100), "Nothing is marked", id="too-grey"),
        pytest.param(b"\x89PNG\r\n\x1a\nnot really", "must be a PNG file", id="broken"),
        pytest.param(mask_file()[:120], "must be a PNG file", id="cut-off"),
        pytest.param(b"GIF89a" + bytes(200), "must be a PNG file", id="another-format"),
        pytest.param(b"", "Nothing is marked", id="empty"),
    ],
)
def test_what_is_no_mask_is_refused_beside_its_field_and_nothing_is_kept(signed_in, before, mask, words):
    response = signed_in.post("/dream/", form_of(before, mask))
    assert response.status_code == 422
    assert words in response.content.decode()
    assert Dream.objects.count() == 1


def test_a_mask_is_written_anew_without_what_else_was_in_its_file(signed_in, before):
    hidden = PngImagePlugin.PngInfo()
    hidden.add_text("Comment", "where I live")
    signed_in.post("/dream/", form_of(before, mask_file(pnginfo=hidden)))
    dream = Dream.objects.exclude(pk=before.pk).get()
    assert files_of(dream) == ["image.png", "mask.png"]
    data = inputs.read(dream, inputs.MASK)
    assert b"where I live" not in data
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.size, image.getbbox()) == ("1", (96, 64), (10, 10, 40, 30))


def test_too_large_a_file_is_refused_before_it_is_kept(signed_in, before):
    response = signed_in.post("/dream/", form_of(before, bytes(MAX_FILE_BYTES + 1)))
    assert response.status_code == 400
    two = form_of(before, mask_file()) | {"other": SimpleUploadedFile("b.png", mask_file())}
    assert signed_in.post("/dream/", two).status_code == 400
    assert Dream.objects.count() == 1


def test_a_dream_is_drawn_beyond_the_edges_of_a_picture_and_costs_what_the_gpu_server_says(
    signed_in, user, before, gpu_server, painter
):
    page = signed_in.post("/dream/", form_of(before, show="beyond", num_inference_steps=6))
    assert page.status_code == 200
    initial = page.context["form"].initial
    assert (initial["expand"], initial["strength"], initial["num_inference_steps"]) == ("all", 1.0, 6)
    left = ledger.balance(user)
    signed_in.post("/dream/", form_of(before, expand="sides", strength=1.0, num_inference_steps=6))
    dream = Dream.objects.exclude(pk=before.pk).get()
    assert (dream.width, dream.height, dream.expand) == (96 + 2 * 32, 64, "sides")
    estimated = dream.work_units
    advanced_until_finished(dream)
    assert (dream.status, dream.work_units) == ("done", estimated)
    assert left - ledger.balance(user) == dream.cost == ledger.price_of(estimated)
    [job] = painter.started
    assert (job.params.expand.left, job.params.expand.right, job.params.expand.top) == (32, 32, 0)
    assert (job.params.image.width, job.params.width) == (96, 160)
    signed_in.post(f"/dream/{dream.uuid}/again", {"submission": uuid.uuid4()})
    second = Dream.objects.latest("pk")
    assert (second.width, second.expand) == (160, "sides")
    form = signed_in.get("/dream/", {"from": dream.uuid, "over": f"{dream.uuid}/input"}).context["form"]
    assert form.initial["expand"] == "sides"


@pytest.mark.parametrize("way", DIRECTIONS)
def test_a_picture_grows_by_whole_latents(way):
    growth = growth_of(way, 100, 60)
    assert growth
    assert all(pixels > 0 and pixels % 16 == 0 for pixels in growth.values())
    assert sum(grown_size(way, 100, 60)) == 160 + sum(growth.values())


def test_a_picture_that_would_grow_too_large_is_refused(signed_in, user):
    large = done(user, "a cat", width=1536, height=64)
    response = signed_in.post("/dream/", form_of(large, expand="right", strength=1.0))
    assert response.status_code == 422
    assert "It would be 2304 × 64 pixels" in response.content.decode()


def test_so_little_strength_that_nothing_would_be_drawn_is_refused(signed_in, before):
    response = signed_in.post("/dream/", form_of(before, strength=0.1, num_inference_steps=9))
    assert "Of 9 steps none would be taken" in response.content.decode()


def test_only_ones_own_pictures_can_be_drawn_over_and_seen_as_input(signed_in, client, user, other_user, before):
    hers = done(other_user, width=64, height=64, is_public=True)
    for address in (f"{hers.uuid}/0", f"{before.uuid}/7", f"{before.uuid}/input", "nothing", f"{uuid.uuid4()}/0"):
        assert signed_in.get("/dream/", {"over": address}).status_code == 404, address
        assert signed_in.post("/dream/", form_of(before, over=address)).status_code == 404, address
    signed_in.post("/dream/", form_of(before, mask_file()))
    dream = Dream.objects.get(strength__isnull=False)
    Dream.objects.filter(pk=dream.pk).update(status="done", is_public=True, finished_at=dream.created_at)
    for name in ("input", "mask"):
        response = signed_in.get(f"/dream/{dream.uuid}/{name}/")
        assert (response.status_code, response["Content-Type"]) == (200, "image/png")
        assert response["Cache-Control"] == "private, no-store"
    client.force_login(other_user)
    page = client.get(f"/dream/{dream.uuid}/")
    assert page.status_code == 200
    assert "input/" not in page.content.decode()
    for name in ("input", "mask"):
        assert client.get(f"/dream/{dream.uuid}/{name}/").status_code == 404
        client.logout()
        assert client.get(f"/dream/{dream.uuid}/{name}/").status_code == 404
        client.force_login(other_user)


def test_again_draws_over_the_same_even_when_the_dream_it_came_from_is_deleted(signed_in, before):
    signed_in.post("/dream/", form_of(before, mask_file()))
    dream = Dream.objects.exclude(pk=before.pk).get()
    services.delete(dream=before)
    signed_in.post(f"/dream/{dream.uuid}/again", {"submission": uuid.uuid4()})
    second = Dream.objects.exclude(pk__in=(before.pk, dream.pk)).get()
    assert second.seed != dream.seed
    for name in (inputs.IMAGE, inputs.MASK):
        assert inputs.read(second, name) == inputs.read(dream, name)
    form = signed_in.get("/dream/", {"from": dream.uuid, "over": f"{dream.uuid}/input", "part": "1"}).content.decode()
    assert f'data-mask="/dream/{dream.uuid}/mask/"' in form


def test_the_files_go_with_the_dream(signed_in, before):
    signed_in.post("/dream/", form_of(before, mask_file()))
    dream = Dream.objects.exclude(pk=before.pk).get()
    services.delete(dream=dream)
    advancing.advance(dream_id=dream.pk)
    assert files_of(dream) == []
    assert files_of(before) == []


def test_a_dream_that_is_refused_leaves_no_files(signed_in, before, settings, user, monkeypatch):
    settings.DREAMS_PRICE_PER_WORK_UNIT = Decimal(100_000)
    written = []
    monkeypatch.setattr(inputs, "keep", lambda dream, given: written.append(dream))
    assert signed_in.post("/dream/", form_of(before, mask_file())).status_code == 422
    assert written == []


def test_an_input_that_is_lost_ends_the_dream_and_costs_nothing(signed_in, before, user, gpu_server):
    left = ledger.balance(user)
    signed_in.post("/dream/", form_of(before, mask_file()))
    dream = Dream.objects.exclude(pk=before.pk).get()
    inputs.delete_files(dream)
    advancing.advance(dream_id=dream.pk)
    dream.refresh_from_db()
    assert (dream.status, dream.error_code) == ("failed", "input_lost")
    assert ledger.balance(user) == left
