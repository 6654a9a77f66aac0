"""Views that serve picture files, with their access control."""

from __future__ import annotations

from uuid import UUID

from django.db.models.fields.files import FieldFile
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from newdreamflow.dreams import inputs, photos, selectors
from newdreamflow.dreams.models import Dream, Picture

__all__ = ["input_image", "mask", "photo", "picture", "thumbnail"]

_THUMBNAIL_TYPE = "image/webp"
_SUFFIXES = {"image/png": "png", "image/webp": "webp", "image/jpeg": "jpg"}


@require_safe
def picture(request: HttpRequest, uuid: UUID, index: int) -> HttpResponseBase:
    """A picture as it was drawn; with `?download=1` to be kept under a name of ours."""
    found = _visible(request, uuid, index)
    response = _answer(request, found, found.file, found.media_type)
    if request.GET.get("download"):
        # Nothing that a user wrote but letters, digits and dashes.
        name = slugify(found.dream.prompt)[:60].strip("-") or "dream"
        response["Content-Disposition"] = f'attachment; filename="{name}-{found.seed}.{_SUFFIXES[found.media_type]}"'
    return response


@require_safe
def thumbnail(request: HttpRequest, uuid: UUID, index: int) -> HttpResponseBase:
    """Its small copy."""
    found = _visible(request, uuid, index)
    return _answer(request, found, found.thumbnail, _THUMBNAIL_TYPE)


@require_safe
def input_image(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """What a dream is drawn over, for its owner alone, whoever may see the dream."""
    return _private(request, uuid, inputs.IMAGE)


@require_safe
def mask(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Which part of that, for its owner alone."""
    return _private(request, uuid, inputs.MASK)


@require_safe
def photo(request: HttpRequest, name: str) -> HttpResponse:
    """A photo that waits for the form to be sent, for its owner alone."""
    content = photos.read(request.user, name) if request.user.is_authenticated else None
    if content is None:
        raise Http404
    return _private_png(content)


def _private(request: HttpRequest, uuid: UUID, name: str) -> HttpResponse:
    if not request.user.is_authenticated:
        raise Http404
    dream = get_object_or_404(selectors.own_dreams(request.user), uuid=uuid)
    try:
        content = inputs.read(dream, name)
    except inputs.InputLostError:
        raise Http404 from None
    return _private_png(content)


def _private_png(content: bytes) -> HttpResponse:
    headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
    return HttpResponse(content, content_type="image/png", headers=headers)


def _visible(request: HttpRequest, uuid: UUID, index: int) -> Picture:
    dreams = Dream.objects.visible_to(request.user)
    return get_object_or_404(Picture.objects.select_related("dream"), dream__in=dreams, dream__uuid=uuid, index=index)


def _answer(request: HttpRequest, found: Picture, file: FieldFile, media_type: str) -> HttpResponseBase:
    # A redrawn picture has a new row.
    etag = f'"{found.pk}-{media_type}"'
    response = get_conditional_response(request, etag=etag)
    if response is None:
        try:
            # Whole: they are small, and a server that is asynchronous cannot send a file piece by piece.
            with file.open() as opened:
                content = opened.read()
        except FileNotFoundError:
            raise Http404 from None
        response = HttpResponse(content, content_type=media_type)
    response["ETag"] = etag
    response["Cache-Control"] = "private, max-age=3600"
    response["X-Content-Type-Options"] = "nosniff"
    # It is not shown from the cache to whoever signs in next in the same browser.
    patch_vary_headers(response, ["Cookie"])
    return response
