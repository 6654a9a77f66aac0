"""Admin of dreams and ledger: staff may cancel, retry and unpublish dreams; the ledger is read-only."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from newdreamflow.dreams import services
from newdreamflow.dreams.models import Dream, LedgerEntry, Tag

__all__ = ["DreamAdmin", "LedgerEntryAdmin", "TagAdmin"]


class _LookOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Nobody adds, changes or deletes rows by hand."""

    def has_add_permission(self, _request: HttpRequest, _row: object = None) -> bool:
        """No."""
        return False

    def has_change_permission(self, _request: HttpRequest, _row: object = None) -> bool:
        """No."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _row: object = None) -> bool:
        """No."""
        return False


@admin.register(Dream)
class DreamAdmin(_LookOnly):
    """Dreams. What happens to them are the acts of `services.py`."""

    list_display = ("short_id", "user", "status", "created_at", "seconds", "num_retries", "cost", "is_public")
    list_filter = ("status", "is_public", "created_at")
    list_select_related = ("user",)
    list_per_page = 50
    list_max_show_all = 100
    show_full_result_count = False
    search_fields = ("=uuid", "user__username", "=remote_job_id", "error_code")
    search_help_text = "Id, name of the user, job on the GPU server, code of an error"
    actions = ("cancel", "try_now", "hide")
    fieldsets = (
        (None, {"fields": ("uuid", "user", "status", "trouble", "error_code", "error")}),
        (
            "Asked for",
            {
                "fields": (
                    ("words", "style"),
                    ("width", "height", "num_images"),
                    ("num_inference_steps", "guidance_scale", "seed"),
                    "is_public",
                )
            },
        ),
        (
            "On its way",
            {
                "fields": (
                    ("created_at", "sent_at", "finished_at"),
                    ("cancel_requested_at", "deleted_at"),
                    ("next_try_at", "tries_in_vain", "num_retries", "redraws"),
                    ("remote_job_id", "lease_until"),
                )
            },
        ),
        ("Came to", {"fields": (("work_units", "cost"), "engine_s", "model", "bookings")}),
    )
    readonly_fields = ("words", "bookings")

    def has_change_permission(self, request: HttpRequest, row: object = None) -> bool:
        """The actions of the list, for those who have the permission; never a row's fields."""
        return row is None and admin.ModelAdmin.has_change_permission(self, request)

    @admin.display(description="dream", ordering="uuid")
    def short_id(self, dream: Dream) -> str:
        """The beginning of its id. What it shows is its owner's."""
        return str(dream.uuid)[:8]

    @admin.display(description="seconds")
    def seconds(self, dream: Dream) -> str:
        """From submitting to the end."""
        return f"{(dream.finished_at - dream.created_at).total_seconds():.1f}" if dream.finished_at else "–"

    @admin.display(description="prompt")
    def words(self, dream: Dream) -> str:
        """What is public anyway."""
        if not dream.is_public:
            return "private: only its owner can read it"
        return f"{dream.prompt} (not: {dream.negative_prompt})" if dream.negative_prompt else dream.prompt

    @admin.display(description="bookings")
    def bookings(self, dream: Dream) -> SafeString:
        """Its entries in the ledger."""
        lines = [f"{entry.get_kind_display()}: {entry.amount}" for entry in dream.ledger.order_by("pk")]
        return format_html("{}", "; ".join(lines) or "none")

    @admin.action(description="Cancel", permissions=["change"])
    def cancel(self, request: HttpRequest, dreams: QuerySet[Dream]) -> None:
        """Stop what has not ended."""
        self._each(request, dreams, services.cancel, "cancelled")

    @admin.action(description="Try again now", permissions=["change"])
    def try_now(self, request: HttpRequest, dreams: QuerySet[Dream]) -> None:
        """Do not wait for the pause to be over."""
        self._each(request, dreams, services.hurry, "tried again now")

    @admin.action(description="Take out of the public gallery", permissions=["change"])
    def hide(self, request: HttpRequest, dreams: QuerySet[Dream]) -> None:
        """Leave it to its owner alone."""
        public = dreams.filter(is_public=True)
        number = public.count()
        for dream in public:
            services.publish(dream=dream, is_public=False)
        messages.success(request, f"{number} taken out of the gallery.")

    @staticmethod
    def _each(request: HttpRequest, dreams: QuerySet[Dream], act: Callable[..., None], words: str) -> None:
        ended = dreams.filter(status__in=Dream.FINISHED).count()
        unfinished = dreams.exclude(status__in=Dream.FINISHED)
        number = 0
        for dream in unfinished:
            act(dream=dream)
            number += 1
        messages.success(request, f"{number} {'is' if number == 1 else 'are'} {words}.")
        if ended:
            messages.warning(request, f"Nothing was done to {ended} that had ended already.")


@admin.register(LedgerEntry)
class LedgerEntryAdmin(_LookOnly):
    """The ledger, to read."""

    list_display = ("created_at", "user", "kind", "amount", "short_dream", "note")
    list_filter = ("kind", "created_at")
    list_select_related = ("user", "dream")
    list_per_page = 100
    list_max_show_all = 100
    show_full_result_count = False
    search_fields = ("user__username", "=dream__uuid", "note")
    fields = ("created_at", "user", "kind", "amount", "short_dream", "note")

    @admin.display(description="dream")
    def short_dream(self, entry: LedgerEntry) -> str:
        """The beginning of its id."""
        return str(entry.dream.uuid)[:8] if entry.dream else ""


@admin.register(Tag)
class TagAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Tags: a word that should not be there can be taken away, from every dream."""

    list_display = ("name",)
    search_fields = ("name",)
    list_per_page = 100

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Dreams make them."""
        return False
