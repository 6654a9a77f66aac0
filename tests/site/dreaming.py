"""Dreams and pictures that are simply there, for tests of pages."""

from __future__ import annotations

import io

from django.utils import timezone
from PIL import Image

from newdreamflow.dreams import ledger, pictures, services
from newdreamflow.dreams.models import Dream, Picture, Tag


def waiting(user, prompt="a cat", tags=(), **columns):
    """A dream that has been submitted."""
    names = {"width", "height", "num_images", "seed", "style", "is_public", "num_inference_steps", "guidance_scale"}
    wished = {name: columns.pop(name) for name in names & columns.keys()}
    wish = services.Wish(prompt=prompt, tags=tags, **({"width": 64, "height": 64} | wished))
    dream = services.submit(user=user, wish=wish)
    if columns:
        Dream.objects.filter(pk=dream.pk).update(**columns)
        dream.refresh_from_db()
    return dream


def done(user, prompt="a cat", tags=(), **columns):
    """A dream that was drawn and paid for."""
    dream = waiting(user, prompt, tags, **columns)
    for index in range(dream.num_images):
        picture = pictures.kept(dream, index, pictures.Drawn(png(dream, index), "image/png", dream.seed + index))
        picture.save()
    dream.cost = ledger.price_of(dream.work_units)
    dream.status, dream.finished_at = "done", timezone.now()
    dream.save()
    ledger.settle(dream, dream.cost)
    return dream


def failed(user, error="The model produced no usable picture."):
    """A dream that could not be drawn."""
    dream = waiting(user, status="failed", finished_at=timezone.now(), error=error)
    ledger.release(dream)
    return dream


def many_done(user, number, **columns):
    """So many dreams, made quickly: without files."""
    now = timezone.now()
    made = Dream.objects.bulk_create(
        Dream(
            user=user,
            prompt=f"dream {index}",
            folded_prompt=f"dream {index}",
            seed=index,
            status="done",
            finished_at=now,
            **columns,
        )
        for index in range(number)
    )
    Picture.objects.bulk_create(
        Picture(dream=dream, index=0, seed=1, file="a.png", thumbnail="a.webp", media_type="image/png", num_bytes=1)
        for dream in made
    )
    tags = Tag.objects.bulk_create(Tag(name=f"tag-{index}") for index in range(40))
    links = Dream.tags.through
    links.objects.bulk_create(
        links(dream=dream, tag=tags[(index + step) % 40]) for index, dream in enumerate(made) for step in (0, 1)
    )
    return made


def png(dream, index=0):
    """A picture of the dream's size, in one colour."""
    file = io.BytesIO()
    Image.new("RGB", (dream.width, dream.height), (30 * index, 80, dream.seed % 256)).save(file, "PNG")
    return file.getvalue()
