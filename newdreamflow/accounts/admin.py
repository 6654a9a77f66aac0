"""Admin of users: credits left, and giving credits."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from newdreamflow.accounts.models import User
from newdreamflow.dreams import ledger
from newdreamflow.dreams.conf import dreams_settings

__all__ = ["UserAdmin"]


class _GrantForm(forms.Form):
    amount = forms.DecimalField(label="Credits for each", min_value=0, max_digits=8, decimal_places=2)
    note = forms.CharField(label="Why", max_length=120, help_text="They see it in their ledger.")
    submission = forms.UUIDField(widget=forms.HiddenInput)

    def clean_amount(self) -> Any:  # noqa: ANN401 -- Django's own signature
        """More than nothing."""
        if not self.cleaned_data["amount"]:
            raise forms.ValidationError("Enter an amount above 0.")
        return self.cleaned_data["amount"]


@admin.register(User)
class UserAdmin(DjangoUserAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Django's page for users, with what they have left to dream with."""

    list_display = ("username", "email", "left", "is_active", "is_pending", "is_staff", "date_joined")
    list_filter = ("is_active", "is_pending", "is_staff", "date_joined")
    list_select_related = ("dreams_budget",)
    list_per_page = 50
    list_max_show_all = 100
    show_full_result_count = False
    actions = ("give_credits",)
    add_fieldsets = (
        (None, {"classes": ("wide",), "fields": ("username", "email", "usable_password", "password1", "password2")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """With the sum of each one's ledger."""
        users: QuerySet[User] = super().get_queryset(request)
        return users.annotate(ledger_sum=Sum("ledger__amount"))

    def has_delete_permission(self, request: HttpRequest, user: User | None = None) -> bool:
        """No: dreams and ledger hang on a user. Make them inactive instead."""
        del request, user
        return False

    @admin.display(description="credits left", ordering="ledger_sum")
    def left(self, user: Any) -> str:  # noqa: ANN401 -- a user with `ledger_sum`
        """What is left; of one who has never dreamt, what they will begin with."""
        left = user.ledger_sum if hasattr(user, "dreams_budget") else dreams_settings.DREAMS_STARTING_BUDGET
        return f"{left or 0:.2f}"

    def has_grant_permission(self, request: HttpRequest) -> bool:
        """Users who may add to the ledger."""
        return request.user.has_perm("dreams.add_ledgerentry")

    @admin.action(description="Give credits …", permissions=["grant"])
    def give_credits(self, request: HttpRequest, users: QuerySet[User]) -> HttpResponse | None:
        """Ask how many and why, then book them."""
        form = _GrantForm(request.POST if "amount" in request.POST else None, initial={"submission": uuid.uuid4()})
        if form.is_valid():
            cleaned = form.cleaned_data
            note = f"{cleaned['note']} ({request.user.get_username()})"
            number = 0
            for user in users:
                # Sent twice, it is booked once: the form has an id, and each user's part of it another one.
                of_user = uuid.uuid5(cleaned["submission"], str(user.pk))
                ledger.grant(user=user, amount=cleaned["amount"], note=note, submission=of_user)
                self.log_change(request, user, f"Gave {cleaned['amount']} credits: {cleaned['note']}")
                number += 1
            messages.success(request, f"{cleaned['amount']} credits were given to {number} of them.")
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": "Give credits",
            "form": form,
            "users": users,
            "opts": self.opts,
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
        }
        return render(request, "admin/accounts/user/give_credits.html", context)
