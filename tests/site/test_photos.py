"""Dreams that begin with a photo: what is taken, what is kept of it and for how long, and that it stays private."""

from __future__ import annotations

import datetime
import io
import os
import struct
import uuid
import zlib
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from PIL import Image

from newdreamflow.accounts import services as accounts
from newdreamflow.dreams import advancing, inputs, ledger, photos, services
from newdreamflow.dreams.forms import first_values
from newdreamflow.dreams.models import Dream

pytestmark = pytest.mark.django_db

FORMATS = ("PNG", "JPEG", "WEBP")


@pytest.fixture(autouse=True)
def empty_storage(settings, tmp_path):
    """Users of other tests have had the same keys."""
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def signed_in(client, user):
    client.force_login(user)
    return client


def photo(size=(120, 80), picture_format="JPEG", mode="RGB", **saving):
    """A photo, red on its left half and blue on its right half."""
    image = Image.new("RGB", size, (230, 20, 20))
    image.paste((20, 20, 230), (size[0] // 2, 0, *size))
    file = io.BytesIO()
    image.convert(mode).save(file, picture_format, **saving)
    return file.getvalue()


def pixels_of(png):
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return image.convert("RGB").copy()


def post(client, data, **changes):
    values = first_values() | {"prompt": "a dog", "size": 384} | changes
    form = {name: value for name, value in values.items() if value is not None}
    return client.post("/dream/", form | {"photo": SimpleUploadedFile("photo", data, "image/jpeg")})


def names_of(user):
    return [Path(name).stem for name in folder_of(user)]


def folder_of(user):
    folder = f"photos/{user.pk}"
    return default_storage.listdir(folder)[1] if default_storage.exists(folder) else []


def second_form(name, **changes):
    form = first_values() | {"prompt": "a dog", "over": f"photo/{name}"} | changes
    return {key: value for key, value in form.items() if key not in {"shape", "size"}}


@pytest.mark.parametrize("picture_format", FORMATS)
def test_a_photo_of_every_format_becomes_a_dream(signed_in, user, gpu_server, painter, picture_format):
    page = post(signed_in, photo(picture_format=picture_format), tags="sea", num_inference_steps=9)
    assert page.status_code == 200
    assert Dream.objects.count() == 0, "that is the next step"
    [name] = names_of(user)
    assert page.context["form"].initial["num_inference_steps"] == 9
    html = page.content.decode()
    assert f'value="photo/{name}"' in html
    assert f'src="/dream/photo/{name}/"' in html
    for word in ("a dog", 'value="sea"', "384 × 256", "24 hours"):
        assert word in html
    left = ledger.balance(user)
    assert signed_in.post("/dream/", second_form(name, strength=0.5)).status_code == 302
    dream = Dream.objects.get()
    assert (dream.width, dream.height, dream.strength, dream.has_mask) == (384, 256, 0.5, False)
    assert left - ledger.balance(user) == ledger.price_of(dream.work_units) > 0
    for _ in range(2000):
        Dream.objects.unfinished().update(next_try_at=dream.created_at)
        advancing.advance(dream_id=dream.pk)
        dream.refresh_from_db()
        if dream.is_finished:
            break
    assert dream.status == "done"
    assert left - ledger.balance(user) == dream.cost == ledger.price_of(dream.work_units)
    [job] = painter.started
    assert (job.params.image.width, job.params.image.height) == (384, 256)


def test_a_part_of_a_photo_can_be_redrawn(signed_in, user):
    page = post(signed_in, photo())
    [name] = names_of(user)
    page = signed_in.post("/dream/", second_form(name, show="part", negative_prompt="dogs"))
    assert page.status_code == 200
    html = page.content.decode()
    assert f'data-picture="/dream/photo/{name}/"' in html
    assert "dogs" in html
    assert 'name="show" formnovalidate value="whole"' in html
    mask = Image.new("L", (384, 256))
    mask.paste(255, (10, 10, 60, 60))
    file = io.BytesIO()
    mask.save(file, "PNG")
    sent = second_form(name, part="True", mask=SimpleUploadedFile("mask.png", file.getvalue(), "image/png"))
    assert signed_in.post("/dream/", sent).status_code == 302
    assert Dream.objects.get().has_mask
    html = signed_in.post("/dream/", second_form(name, part="True", show="whole")).content.decode()
    assert 'name="show" formnovalidate value="part"' in html


def test_a_photo_stands_upright_and_nothing_but_its_pixels_is_kept():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it to the right: what was on the left is above
    exif[0x010F] = "A camera"
    kept = photos.decode(photo((120, 80), exif=exif), 256)
    image = pixels_of(kept)
    assert image.size == (176, 256)
    assert image.getpixel((88, 20))[0] > 200 > 60 > image.getpixel((88, 236))[0]
    assert b"camera" not in kept
    assert kept == photos.decode(kept, 256), "reading it again changes nothing"


def test_transparent_grey_and_deep_photos_look_as_they_are():
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(file, "PNG")
    assert pixels_of(photos.decode(file.getvalue(), 256)).getpixel((128, 128)) == (255, 255, 255)
    file = io.BytesIO()
    Image.new("I;16", (64, 64), 0x8000).save(file, "PNG")
    assert pixels_of(photos.decode(file.getvalue(), 256)).getpixel((128, 128)) == (128, 128, 128)
    red, _, blue = pixels_of(photos.decode(photo(mode="CMYK"), 256)).getpixel((20, 80))
    assert red > 150 > 100 > blue


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((4000, 3000), 512, (512, 384)),
        ((100, 300), 256, (80, 256)),
        ((64, 64), 768, (768, 768)),
        ((3, 2), 320, (320, 208)),
    ],
)
def test_a_photo_gets_the_size_that_was_chosen(size, long_side, expected):
    assert pixels_of(photos.decode(photo(size, "PNG"), long_side)).size == expected


def header_only(width, height):
    """A PNG file that says it is so large, and has no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def large_webp(kind, body):
    return b"RIFF" + struct.pack("<I", 100) + b"WEBP" + kind + struct.pack("<I", len(body)) + body + bytes(40)


def animation():
    file = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


REFUSED = {
    "text": (b"not a picture", "must be a PNG, JPEG or WebP file"),
    "gif": (photo(picture_format="GIF"), "must be a PNG, JPEG or WebP file"),
    "cut off": (photo(picture_format="PNG")[:90], "must be a PNG, JPEG or WebP file"),
    "60,000 x 1": (header_only(60_000, 1), "at most 3 times as long"),
    "bomb": (header_only(30_000, 30_000), "at most 25 million pixels"),
    "VP8X bomb": (large_webp(b"VP8X", bytes(4) + b"\xff\x3f\0\xff\x3f\0"), "at most 25 million pixels"),
    "VP8L bomb": (large_webp(b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(8)), "at most 25 million pixels"),
    "VP8 bomb": (large_webp(b"VP8 ", bytes(6) + b"\xff\x3f\xff\x3f"), "at most 25 million pixels"),
    "animation": (animation(), "a single picture"),
    "empty": (b"", "an empty file"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_photo_is_refused_beside_its_field_and_nothing_is_kept(signed_in, user, data, words):
    page = post(signed_in, data, prompt="")
    assert page.status_code == 422
    assert words in page.content.decode()
    assert list(page.context["form"].errors) == ["photo"], "the rest of the form is not finished yet"
    assert folder_of(user) == []


def test_too_large_a_photo_is_refused_before_it_is_read(signed_in, user, monkeypatch):
    monkeypatch.setattr(photos, "MAX_BYTES", 100_000)
    assert post(signed_in, bytes(100_001)).status_code == 400
    with pytest.raises(photos.PhotoError, match="at most"):
        photos.decode(bytes(100_001), 256)
    assert folder_of(user) == []


def test_a_stranger_cannot_upload_a_photo(client, monkeypatch):
    monkeypatch.setattr(photos, "decode", pytest.fail)
    assert post(client, photo()).status_code == 302, "to the page for signing in"
    strict = Client(enforce_csrf_checks=True)
    strict.get("/accounts/sign-in/")
    assert post(strict, photo()).status_code == 400, "before its form is read for the token"


def test_only_its_owner_sees_and_uses_a_photo(signed_in, client, user, other_user):
    post(signed_in, photo())
    [name] = names_of(user)
    response = signed_in.get(f"/dream/photo/{name}/")
    assert (response.status_code, response["Content-Type"]) == (200, "image/png")
    assert response["Cache-Control"] == "private, no-store"
    client.force_login(other_user)
    assert client.get(f"/dream/photo/{name}/").status_code == 404
    assert client.get("/dream/", {"over": f"photo/{name}"}).status_code == 404
    assert client.post("/dream/", second_form(name)).status_code == 404
    client.logout()
    assert client.get(f"/dream/photo/{name}/").status_code == 404
    assert inputs.source(user, f"photo/../{name}") is None


def test_a_photo_is_deleted_with_its_dream(signed_in, user):
    post(signed_in, photo())
    [name] = names_of(user)
    signed_in.post("/dream/", second_form(name))
    dream = Dream.objects.get()
    services.delete(dream=dream)
    advancing.advance(dream_id=dream.pk)
    assert folder_of(user) == []
    assert not default_storage.exists(f"{dream.folder}/input/image.png")


def test_a_photo_is_deleted_with_its_account(signed_in, user):
    post(signed_in, photo())
    accounts.delete_account(user=user)
    assert folder_of(user) == []


def test_photos_expire_and_only_the_newest_ten_are_kept(user, settings):
    names = [photos.keep(user, photos.decode(photo((64 + 8 * index, 64), "PNG"), 256)) for index in range(12)]
    kept = names_of(user)
    assert len(set(kept)) == 10
    assert names[-1] in kept
    old = (timezone.now() - datetime.timedelta(hours=photos.KEPT_HOURS, minutes=1)).timestamp()
    for file in folder_of(user)[:9]:
        os.utime(default_storage.path(f"photos/{user.pk}/{file}"), (old, old))
    photos.delete_expired()
    assert len(folder_of(user)) == 1


# --- hires fix, and a choice of models --------------------------------------------------------------------------------


def plain_form(**changes):
    values = first_values() | {"prompt": "a dog", "size": 256, "num_inference_steps": 5} | changes
    return {name: value for name, value in values.items() if value is not None}


def test_a_dream_with_hires_fix_is_twice_as_large_and_costs_what_the_gpu_server_says(
    signed_in, user, gpu_server, painter
):
    left = ledger.balance(user)
    signed_in.post("/dream/", plain_form(hires="on", num_images=2))
    dream = Dream.objects.get()
    estimated = dream.work_units
    assert estimated == (Decimal(2 * 2 * (5 + 3 * 4)) * 256 * 256 / (56 * 512 * 512)).quantize(Decimal("0.000001"))
    for _ in range(2000):
        Dream.objects.unfinished().update(next_try_at=dream.created_at)
        advancing.advance(dream_id=dream.pk)
        dream.refresh_from_db()
        if dream.is_finished:
            break
    assert (dream.status, dream.work_units) == ("done", estimated)
    assert left - ledger.balance(user) == dream.cost == ledger.price_of(estimated)
    [job] = painter.started
    assert (job.params.hires.width, job.params.hires.height, job.params.hires.steps) == (512, 512, 3)
    html = signed_in.get(f"/dream/{dream.uuid}/").content.decode()
    assert "512 × 512" in html
    assert "256 × 256" in html
    signed_in.post(f"/dream/{dream.uuid}/again", {"submission": uuid.uuid4()})
    assert Dream.objects.count() == 2
    assert Dream.objects.latest("pk").hires


def test_a_choice_of_models_is_there_where_the_site_has_several(signed_in, settings):
    assert "model" not in signed_in.get("/dream/").context["form"].fields
    settings.DREAMS_MODELS = ("models/small", "xl")
    choices = list(signed_in.get("/dream/").context["form"].fields["model"].choices)
    assert choices == [("models/small", "small"), ("xl", "xl")]
    assert signed_in.post("/dream/", plain_form(model="other")).status_code == 422
    signed_in.post("/dream/", plain_form(model="xl"))
    dream = Dream.objects.get()
    assert dream.wanted_model == "xl"
    signed_in.post("/dream/", plain_form())
    assert Dream.objects.latest("pk").wanted_model == "models/small"
    settings.DREAMS_MODELS = ("small",)
    assert "model" not in signed_in.get("/dream/").context["form"].fields
    signed_in.post(f"/dream/{dream.uuid}/again", {"submission": uuid.uuid4()})
    assert Dream.objects.latest("pk").wanted_model == "small", "what is not offered any more is not asked for"
