"""Dreams, their pictures, their tags and the ledger. The `Dream` row has the whole state of a dream.

    waiting -> drawing -> done | failed | cancelled
       ^---------|            the GPU server has lost the job: it is asked for again

What people do with a dream is in `services.py`, what the background does in `advancing.py`, money in `ledger.py`.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any, Final, NoReturn, TypeAlias
from uuid import uuid4

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

from newdreamflow.text import folded

__all__ = [
    "HIRES_SCALE",
    "MAX_SEED",
    "MOST_PICTURES",
    "SIZES",
    "AnyUser",
    "AppendOnlyError",
    "Budget",
    "Dream",
    "LedgerEntry",
    "Picture",
    "Tag",
    "hires_steps",
    "steps_taken",
]

MOST_PICTURES: Final = 4
MAX_SEED: Final = 2**32 - 1
AnyUser: TypeAlias = Any
"""A user of whatever model the site has (`AUTH_USER_MODEL`), or nobody: this app knows none."""
HIRES_SCALE: Final = 2
"""How much wider and higher hires fix makes a picture."""
SIZES: Final = (192, 256, 320, 384, 512, 640, 768)


class Tag(models.Model):
    """A word that dreams can be found by."""

    name = models.SlugField(max_length=40, unique=True, allow_unicode=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class DreamQuerySet(models.QuerySet["Dream"]):
    """Which dreams."""

    def visible_to(self, user: AnyUser) -> DreamQuerySet:
        """One's own and the public ones that are finished."""
        is_public = models.Q(is_public=True, status=Dream.Status.DONE)
        return self.present().filter(is_public | models.Q(user_id=user.pk) if user.is_authenticated else is_public)

    def present(self) -> DreamQuerySet:
        """Those that were not deleted."""
        return self.filter(deleted_at=None)

    def unfinished(self) -> DreamQuerySet:
        """Those that are waited for."""
        return self.filter(status__in=(Dream.Status.WAITING, Dream.Status.DRAWING))

    def due(self, now: datetime.datetime) -> DreamQuerySet:
        """Those to advance now: they are due, and not leased or their lease has expired."""
        return self.unfinished().filter(next_try_at__lte=now).exclude(lease_until__gt=now)

    def due_pks(self, now: datetime.datetime, limit: int) -> list[int]:
        """Keys of those, the longest due first."""
        return list(self.due(now).order_by("next_try_at").values_list("pk", flat=True)[:limit])


class Dream(models.Model):
    """What one user has asked for, and where it is."""

    class Status(models.TextChoices):
        """Where it is."""

        WAITING = "waiting", "Waiting"
        DRAWING = "drawing", "Being drawn"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    FINISHED: Final = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED})

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    """In its address, and in its idempotency key."""
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="dreams")
    submission = models.UUIDField(default=uuid4, editable=False)
    """Of the form that was sent: sent twice, it is one dream."""

    prompt = models.TextField(max_length=1000)
    negative_prompt = models.TextField(max_length=1000, blank=True)
    style = models.CharField(max_length=20, blank=True)
    """Key of a style in `styles.py`; empty: none."""
    num_inference_steps = models.PositiveSmallIntegerField(
        default=28, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )
    guidance_scale = models.FloatField(default=7.0, validators=[MinValueValidator(0.0), MaxValueValidator(30.0)])
    width = models.PositiveSmallIntegerField(default=512)
    """Pixels."""
    height = models.PositiveSmallIntegerField(default=512)
    """Pixels."""
    seed = models.BigIntegerField(validators=[MinValueValidator(0), MaxValueValidator(MAX_SEED)])
    """Of the first picture; the others have the next ones."""
    num_images = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(MOST_PICTURES)]
    )
    strength = models.FloatField(null=True, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)])
    """How much of another picture is drawn over (`inputs.py`); None: it is drawn from words alone."""
    has_mask = models.BooleanField(default=False)
    """Whether only a part of that picture is drawn over."""
    expand = models.CharField(max_length=10, blank=True)
    """Which way that picture grows (`growth.py`), `width` and `height` included; empty: it does not."""
    hires = models.BooleanField(default=False)
    """Whether it is enlarged to twice its width and height and drawn on (hires fix)."""
    wanted_model = models.CharField(max_length=200, blank=True)
    """The model that was chosen; empty: the GPU server's default. `model` says which one has drawn it."""

    is_public = models.BooleanField(default=False)
    tags = models.ManyToManyField(Tag, blank=True, related_name="dreams")

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.WAITING)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    sent_at = models.DateTimeField(null=True, editable=False)
    """When it was first sent to the GPU server; set before, since an answer may never come."""
    finished_at = models.DateTimeField(null=True, editable=False)
    cancel_requested_at = models.DateTimeField(null=True, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    """When its owner deleted it: wish and pictures are gone, what it cost stays in the ledger."""

    remote_job_id = models.CharField(max_length=64, blank=True, editable=False)
    """On the GPU server; empty while it is not known."""
    redraws = models.PositiveSmallIntegerField(default=0, editable=False)
    """Times that the GPU server had lost the job, so that it was asked for anew."""
    tries_in_vain = models.PositiveIntegerField(default=0, editable=False)
    """In a row; back to 0 when something worked. The pause between tries grows with it."""
    num_retries = models.PositiveIntegerField(default=0, editable=False)
    """All of them, for staff."""
    next_try_at = models.DateTimeField(default=timezone.now, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    lease_token = models.UUIDField(null=True, editable=False)
    """Whoever advances it now. A token that is not there any more may not write."""

    trouble = models.CharField(max_length=200, blank=True, editable=False)
    """What holds it up right now, in words for its owner; empty if nothing does."""
    error_code = models.CharField(max_length=40, blank=True, editable=False)
    error = models.CharField(max_length=300, blank=True, editable=False)
    """Why it failed, in words for its owner."""

    work_units = models.DecimalField(max_digits=12, decimal_places=6, default=Decimal(0), editable=False)
    """As estimated, then as the GPU server says."""
    cost = models.DecimalField(max_digits=12, decimal_places=4, default=Decimal(0), editable=False)
    """Credits that its owner pays; 0 until it is done."""
    engine_s = models.FloatField(null=True, editable=False)
    """Seconds that the drawing itself took."""
    model = models.CharField(max_length=200, blank=True, editable=False)
    is_prompt_cut = models.BooleanField(default=False, editable=False)
    """Whether the model could not read all of the prompt."""
    folded_prompt = models.TextField(blank=True, editable=False)
    """What searches look at (`text.folded`): no database folds case and normal forms as the other does."""

    objects = DreamQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-pk")
        indexes = (
            models.Index(fields=("user", "-created_at"), name="dreams_of_user"),
            models.Index(fields=("is_public", "status", "-created_at"), name="dreams_public"),
            models.Index(
                fields=("next_try_at",), name="dreams_due", condition=models.Q(status__in=("waiting", "drawing"))
            ),
        )
        constraints = (
            models.UniqueConstraint(fields=("user", "submission"), name="dream_once_a_submission"),
            models.CheckConstraint(
                condition=models.Q(status__in=("waiting", "drawing"), finished_at=None)
                | models.Q(status__in=("done", "failed", "cancelled"), finished_at__isnull=False),
                name="dream_finished_has_time",
            ),
        )

    def __str__(self) -> str:
        # Not its prompt, which is its owner's: this goes into logs and the staff's lists.
        return f"dream {str(self.uuid)[:8]} ({self.get_status_display()})"

    def get_absolute_url(self) -> str:
        """Its page."""
        return reverse("dreams:dream", args=[self.uuid])

    def save(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        """Keep what searches look at in step with the prompt."""
        self.folded_prompt = folded(self.prompt)
        super().save(*arguments, **named)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in self.FINISHED

    @property
    def steps_of_each(self) -> int:
        """Steps that are taken for one picture: fewer where it begins with another picture, more with hires fix."""
        enlarged = hires_steps(self.num_inference_steps) if self.hires else 0
        return steps_taken(self.num_inference_steps, self.strength) + enlarged

    @property
    def picture_width(self) -> int:
        """Pixels of the finished picture."""
        return self.width * HIRES_SCALE if self.hires else self.width

    @property
    def picture_height(self) -> int:
        """Pixels of the finished picture."""
        return self.height * HIRES_SCALE if self.hires else self.height

    @property
    def idempotency_key(self) -> str:
        """Under which the GPU server draws it once, however often it is asked."""
        return f"{self.uuid}.{self.redraws}"

    @property
    def folder(self) -> str:
        """Where the storage keeps its files, and no others."""
        return f"dreams/{self.uuid.hex[:2]}/{self.uuid}"


def steps_taken(num_inference_steps: int, strength: float | None) -> int:
    """Steps that the GPU server takes: all, or the share that `strength` says."""
    return num_inference_steps if strength is None else min(int(num_inference_steps * strength), num_inference_steps)


def hires_steps(num_inference_steps: int) -> int:
    """Steps that are taken at the larger size, as the GPU server does by default."""
    return -(-num_inference_steps // 2)


def picture_path(picture: Picture, name: str) -> str:
    return f"{picture.dream.folder}/{name}"


class Picture(models.Model):
    """A finished picture and its small copy."""

    dream = models.ForeignKey(Dream, on_delete=models.CASCADE, related_name="pictures")
    index = models.PositiveSmallIntegerField()
    seed = models.BigIntegerField()
    file = models.FileField(upload_to=picture_path)
    thumbnail = models.FileField(upload_to=picture_path)
    media_type = models.CharField(max_length=20)
    num_bytes = models.PositiveIntegerField()

    class Meta:
        ordering = ("index",)
        constraints = (models.UniqueConstraint(fields=("dream", "index"), name="picture_once"),)

    def __str__(self) -> str:
        return f"picture {self.index + 1} of {self.dream_id}"


class AppendOnlyError(TypeError):
    """An entry of the ledger cannot be changed or deleted."""


class LedgerQuerySet(models.QuerySet["LedgerEntry"]):
    """Entries, which can be added and read."""

    def update(self, **_changes: object) -> NoReturn:
        """Refuse."""
        raise AppendOnlyError("ledger entries never change; book another one")

    def delete(self) -> NoReturn:
        """Refuse."""
        raise AppendOnlyError("ledger entries are never deleted; book another one")


class Budget(models.Model):
    """That a user has one. What is left of it is the sum of their ledger; this row is what a booking locks."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, primary_key=True, related_name="dreams_budget"
    )

    def __str__(self) -> str:
        return f"budget of {self.user}"


class LedgerEntry(models.Model):
    """One movement of a user's credits. Added, never changed, never deleted."""

    class Kind(models.TextChoices):
        """Why."""

        GRANT = "grant", "Credits given"
        RESERVE = "reserve", "Set aside"
        SETTLE = "settle", "Given back after drawing"
        RELEASE = "release", "Given back, nothing drawn"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="ledger")
    dream = models.ForeignKey(Dream, on_delete=models.PROTECT, null=True, related_name="ledger")
    """None for grants."""
    kind = models.CharField(max_length=10, choices=Kind.choices)
    amount = models.DecimalField(max_digits=12, decimal_places=4)
    """Credits; positive ones are the user's again."""
    note = models.CharField(max_length=200, blank=True)
    submission = models.UUIDField(null=True, unique=True, editable=False)
    """Of the form by which credits were given: sent twice, they are given once."""
    created_at = models.DateTimeField(default=timezone.now)

    objects = LedgerQuerySet.as_manager()

    class Meta:
        ordering = ("-pk",)
        verbose_name_plural = "ledger entries"
        indexes = (models.Index(fields=("user", "-created_at"), name="ledger_of_user"),)
        constraints = (
            models.UniqueConstraint(fields=("dream", "kind"), name="ledger_once_a_dream_and_kind"),
            models.CheckConstraint(
                condition=models.Q(kind="grant", dream=None)
                | (~models.Q(kind="grant") & models.Q(dream__isnull=False)),
                name="ledger_grants_have_no_dream",
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.amount}"

    def save(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        """Add it.

        Raises:
            AppendOnlyError: it is there already.
        """
        if not self._state.adding:
            raise AppendOnlyError("ledger entries never change; book another one")
        super().save(*arguments, **named)

    def delete(self, *_arguments: object, **_named: object) -> NoReturn:
        """Refuse."""
        raise AppendOnlyError("ledger entries are never deleted; book another one")
