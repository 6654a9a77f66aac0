"""Pages and actions of dreams. Access control is in `Dream.objects.visible_to`, the actions in `services`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import wraps
from http import HTTPStatus
from typing import Final
from uuid import UUID, uuid4

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ValidationError
from django.db import close_old_connections
from django.db.models import QuerySet
from django.forms import UUIDField
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from newdreamflow.dreams import account_statement, inputs, ledger, photos, selectors, services
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.events import events_of
from newdreamflow.dreams.forms import LONG_SIDES, SHORT_SIDES, DreamForm, dimensions, first_values, model_of, values_of
from newdreamflow.dreams.growth import DIRECTIONS, grown_size
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.services import Wish
from newdreamflow.dreams.snapshots import snapshot_of
from newdreamflow.dreams.watching import Sight, watcher

__all__ = [
    "again",
    "cancel",
    "costs",
    "delete",
    "dream",
    "events",
    "gallery",
    "mine",
    "new",
    "progress",
    "publish",
]

_Page = Callable[[HttpRequest], HttpResponse]
_Act = Callable[[HttpRequest, UUID], HttpResponse]

IDEAS: Final = (
    "a sailboat on the sea at sunset",
    "an owl in a forest at night",
    "a hot-air balloon over the mountains at sunrise",
    "a penguin in the snow",
)


def _own_page(page: _Page) -> _Page:
    """A page of one user's own: not for shared caches."""

    @wraps(page)
    def answered(request: HttpRequest) -> HttpResponse:
        response = page(request)
        patch_cache_control(response, private=True, no_cache=True)
        return response

    return login_required(answered)


def _act(act: _Act) -> _Act:
    """Something done with a dream. A user who must sign in first comes back to its page: an act has no page."""

    @wraps(act)
    def done(request: HttpRequest, uuid: UUID) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(reverse("dreams:dream", args=[uuid]))
        return act(request, uuid)

    return require_POST(done)


# --- asking for a dream -----------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@_own_page
def new(request: HttpRequest) -> HttpResponse:
    """The form; and a dream, when it is sent."""
    address = (request.POST if request.method == "POST" else request.GET).get("over", "")
    source = inputs.source(request.user, address) if address else None
    if address and source is None:
        raise Http404
    if request.method != "POST":
        form = DreamForm(initial=_first_values(request), source=source)
    elif source is not None and "show" in request.POST:
        form = _form_again(DreamForm(request.POST, source=source), source, address, request.POST["show"])
    else:
        form = DreamForm(request.POST, request.FILES, source=source)
        if source is None and "photo" in request.FILES and (photo := form.uploaded_photo()) is not None:
            address = f"{inputs.PHOTO}/{photos.keep(request.user, photo)}"
            source = inputs.source(request.user, address)
            form = _form_again(form, source, address, "whole")
    if form.is_bound and form.is_valid():
        wish = form.wish()
        try:
            return redirect(services.submit(user=request.user, wish=wish, submission=form.submission_of(wish)))
        except (ledger.BudgetExceededError, services.TooManyDreamsError) as refused:
            form.add_error(None, _refusal(refused))
    left = ledger.balance(request.user)
    context = {
        "form": form,
        "source": source,
        "source_address": _source_address(address),
        "grown": json.dumps({way: grown_size(way, source.width, source.height) for way in DIRECTIONS})
        if source
        else "",
        "photo_hours": photos.KEPT_HOURS if address.startswith(inputs.PHOTO) else None,
        "mask_address": _mask_address(request, address),
        "ideas": IDEAS,
        "left": left,
        "price": _price_of(form, source),
        "short_sides": json.dumps(SHORT_SIDES),
        "price_per_work_unit": dreams_settings.DREAMS_PRICE_PER_WORK_UNIT,
        "latest": selectors.latest(selectors.own_dreams(request.user), 8),
    }
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form.is_bound else HTTPStatus.OK
    return render(request, "dreams/new.html", context, status=status)


def _form_again(sent: DreamForm, source: inputs.Input | None, address: str, mode: str) -> DreamForm:
    """The form for another step: to redraw the `whole` picture, a `part` of it, or what is `beyond` its edges."""
    values = {**sent.known_values(), "over": address, "part": mode == "part", "expand": ""}
    if mode == "beyond":
        values |= {"expand": "all", "strength": 1.0}  # there is nothing to keep in what is new
    elif values["strength"] == 1.0:
        values["strength"] = first_values()["strength"]
    return DreamForm(initial=values, source=source)


def _first_values(request: HttpRequest) -> dict[str, object]:
    """An empty form; or one that changes a dream (`?from=`) or begins with an idea (`?prompt=`)."""
    try:
        uuid = UUIDField(required=False).clean(request.GET.get("from", ""))
    except ValidationError:
        raise Http404 from None
    address = request.GET.get("over", "")
    over: dict[str, object] = {"over": address, "part": request.GET.get("part") == "1"}
    if uuid is not None:
        dream = get_object_or_404(Dream.objects.visible_to(request.user), uuid=uuid)
        if address and not address.endswith("/input"):
            # A picture of it that is changed: with its own seed again, only the first steps would differ.
            return {**values_of(dream), **over, "seed": None, "unfold": False}
        return values_of(dream) | over
    return first_values() | {"prompt": request.GET.get("prompt", "")[:1000]} | over


def _source_address(address: str) -> str:
    """Where the picture that is drawn over can be looked at."""
    uuid, _, which = address.partition("/")
    if which == "input":
        return reverse("dreams:input", args=[uuid])
    if uuid == inputs.PHOTO:
        return reverse("dreams:photo", args=[which])
    return reverse("dreams:picture", args=[uuid, which]) if which else ""


def _mask_address(request: HttpRequest, address: str) -> str:
    """Where the mask is that the form begins with; nowhere, if its dream has none."""
    uuid, _, which = address.partition("/")
    has_mask = which == "input" and selectors.own_dreams(request.user).filter(uuid=uuid, has_mask=True).exists()
    return reverse("dreams:mask", args=[uuid]) if has_mask else ""


def _price_of(form: DreamForm, source: inputs.Input | None) -> Decimal:
    """What the form would cost as it stands; as it began, if something is wrong in it."""
    if form.is_bound and not form.errors.keys() - {"__all__"}:
        return ledger.price_of(services.estimated_work_units(form.wish()))
    values = {**first_values(), **form.initial}
    width, height = (source.width, source.height) if source else dimensions(values["shape"], values["size"])
    if source and values.get("expand"):
        width, height = grown_size(values["expand"], width, height)
    wish = Wish(
        prompt="",
        num_inference_steps=values["num_inference_steps"],
        guidance_scale=values["guidance_scale"],
        width=width,
        height=height,
        num_images=values["num_images"],
        over=source,
        strength=values["strength"] if source else None,
        hires=source is None and bool(values.get("hires")),
    )
    return ledger.price_of(services.estimated_work_units(wish))


def _refusal(refused: ledger.BudgetExceededError | services.TooManyDreamsError) -> str:
    if isinstance(refused, services.TooManyDreamsError):
        number = dreams_settings.DREAMS_MAX_UNFINISHED
        return f"{number} of your dreams are still waiting to be drawn. Let one finish, or cancel one."
    return (
        f"This dream would cost {refused.wanted:.2f} credits, and you have {refused.left:.2f} left. "
        "A smaller size, fewer steps or fewer pictures cost less."
    )


@_act
def again(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """The same request with another seed."""
    before = get_object_or_404(Dream.objects.visible_to(request.user), uuid=uuid)
    is_mine = before.user_id == request.user.pk
    try:
        over = inputs.of_dream(before) if is_mine else None  # a stranger draws from the words alone
    except inputs.InputLostError:
        messages.error(request, "Nothing was sent: the picture that it was drawn over is gone.")
        return redirect(before)
    wish = Wish(
        prompt=before.prompt,
        negative_prompt=before.negative_prompt,
        style=before.style,
        num_inference_steps=before.num_inference_steps,
        guidance_scale=before.guidance_scale,
        width=before.width,
        height=before.height,
        num_images=before.num_images,
        over=over,
        strength=before.strength if over else None,
        expand=before.expand if over else "",
        hires=before.hires,
        model=model_of(before),
        is_public=is_mine and before.is_public,
        tags=[tag.name for tag in before.tags.all()] if is_mine else (),
    )
    try:
        submission = UUIDField(required=False).clean(request.POST.get("submission", "")) or uuid4()
        return redirect(services.submit(user=request.user, wish=wish, submission=submission))
    except ValidationError:
        messages.error(request, "Nothing was sent: the form was incomplete. Please press the button again.")
        return redirect(before)
    except (ledger.BudgetExceededError, services.TooManyDreamsError) as refused:
        messages.error(request, _refusal(refused))
        return redirect(before)


# --- one dream --------------------------------------------------------------------------------------------------------


@require_safe
def dream(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """A dream's page."""
    found = get_object_or_404(Dream.objects.visible_to(request.user).prefetch_related("pictures", "tags"), uuid=uuid)
    context = {
        "dream": found,
        "is_mine": found.user_id == request.user.pk,
        "snapshot": snapshot_of(Sight(found)),
        "frames": range(found.num_images if found.status == "done" or not found.is_finished else 1),
        "price": ledger.price_of(found.work_units),
        "submission": uuid4(),
    }
    response = render(request, "dreams/dream.html", context)
    patch_cache_control(response, private=True, no_cache=True)
    return response


@require_GET
async def events(request: HttpRequest, uuid: UUID) -> StreamingHttpResponse:
    """How it goes, as server-sent events."""
    found = await _seen(request, uuid)
    # The stream lasts for minutes and asks by another line; this request's one is for others.
    await sync_to_async(close_old_connections)()
    response = StreamingHttpResponse(events_of(found), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


@require_GET
async def progress(request: HttpRequest, uuid: UUID) -> JsonResponse:
    """How it goes, for those whom events do not reach."""
    response = JsonResponse(snapshot_of(watcher().glance(await _seen(request, uuid))))
    response["Cache-Control"] = "no-store"
    return response


async def _seen(request: HttpRequest, uuid: UUID) -> Dream:
    dreams = Dream.objects.visible_to(await request.auser())
    found = await dreams.filter(uuid=uuid).afirst()
    if found is None:
        raise Http404
    return found


def _own_dream(request: HttpRequest, uuid: UUID) -> Dream:
    return get_object_or_404(selectors.own_dreams(request.user), uuid=uuid)


@_act
def cancel(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Stop it."""
    found = _own_dream(request, uuid)
    services.cancel(dream=found)
    return redirect(found)


@_act
def delete(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Take it away for good."""
    services.delete(dream=_own_dream(request, uuid))
    messages.success(request, "The dream is deleted. What it cost stays on your list of costs.")
    return redirect("dreams:mine")


@_act
def publish(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show it to everybody (`is_public=1`), or to its owner alone."""
    found = _own_dream(request, uuid)
    is_public = request.POST.get("is_public") == "1"
    services.publish(dream=found, is_public=is_public)
    messages.success(request, "Everybody can see it now." if is_public else "Only you can see it now.")
    return redirect(found)


# --- many dreams ------------------------------------------------------------------------------------------------------


@require_safe
def gallery(request: HttpRequest) -> HttpResponse:
    """What people show."""
    return _dreams_page(request, "dreams/gallery.html", selectors.public_dreams(), least_of_a_tag=2)


@require_safe
@_own_page
def mine(request: HttpRequest) -> HttpResponse:
    """One's own."""
    return _dreams_page(request, "dreams/mine.html", selectors.own_dreams(request.user))


def _dreams_page(
    request: HttpRequest, template: str, dreams: QuerySet[Dream], *, least_of_a_tag: int = 1
) -> HttpResponse:
    search = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    tag = request.GET.get("tag", "").replace("\x00", "").strip()[:40]
    page = selectors.page_of(selectors.matching(dreams, search=search, tag=tag), request.GET.get("page"))
    tags = selectors.common_tags(dreams, least=least_of_a_tag)
    context = {
        "page": page,
        "search": search,
        "tag": tag,
        "tags": tags,
        "starting_credits": dreams_settings.DREAMS_STARTING_BUDGET,
    }
    return render(request, template, context)


# --- money ------------------------------------------------------------------------------------------------------------


@require_safe
@_own_page
def costs(request: HttpRequest) -> HttpResponse:
    """What dreams have cost, and what is left; with `?format=csv` every entry, for a spreadsheet."""
    if request.GET.get("format") == "csv":
        name = f"newdreamflow-{timezone.localdate().isoformat()}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return HttpResponse(
            account_statement.as_csv(request.user), content_type="text/csv; charset=utf-8", headers=headers
        )
    totals = account_statement.totals_of(request.user)
    page = account_statement.lines_of(request.user, request.GET.get("page"))
    context = {
        "totals": totals,
        "page": page,
        "days": account_statement.days_of(request.user, page),
        "usual": _USUAL,
        "prices": [_row_of_prices(size, totals.left) for size in LONG_SIDES],
    }
    return render(request, "dreams/costs.html", context)


_USUAL: Final = Wish(prompt="")


def _row_of_prices(size: int, left: Decimal) -> tuple[int, Decimal, int | None]:
    """A size, what a usual dream of it costs, and how many of them a user can pay; None: as many as they like."""
    price = ledger.price_of(services.estimated_work_units(replace(_USUAL, width=size, height=size)))
    return size, price, int(max(left, Decimal(0)) / price) if price else None
