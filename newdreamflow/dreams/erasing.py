"""Erases words and pictures of deleted dreams, once nothing more happens to them."""

from __future__ import annotations

from newdreamflow.dreams import inputs, photos, pictures
from newdreamflow.dreams.models import Dream, Picture

__all__ = ["erase_if_over", "erase_left_over"]


def erase_left_over() -> None:
    """Erase what a sudden end kept from being erased: words and pictures of dreams that were deleted."""
    gone = Dream.objects.filter(status__in=Dream.FINISHED).exclude(deleted_at=None)
    for dream_pk in gone.exclude(prompt="", pictures=None).values_list("pk", flat=True).distinct():
        erase_if_over(dream_pk)


def erase_if_over(dream_pk: int) -> None:
    """Remove prompts, pictures and inputs of a dream that was deleted, once nothing more happens to it."""
    gone = Dream.objects.filter(pk=dream_pk, status__in=Dream.FINISHED).exclude(deleted_at=None)
    dream = gone.first()
    if dream is None:
        return
    pictures.delete_files(dream)
    _delete_photo(dream)
    inputs.delete_files(dream)
    # The words last: as long as they are there, what is left is found again after a sudden end.
    Picture.objects.filter(dream=dream).delete()
    gone.update(prompt="", folded_prompt="", negative_prompt="", error="", trouble="")


def _delete_photo(dream: Dream) -> None:
    """Remove the photo that it was begun with, if it still waits in its owner's folder."""
    try:
        given = inputs.of_dream(dream)
    except inputs.InputLostError:
        return
    if given is not None:
        photos.delete_copy(dream.user_id, given.image)
