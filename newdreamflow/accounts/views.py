"""Views of accounts: sign-up, sign-in, sign-out, passwords, the account page."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, views
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import redirect_to_login
from django.forms import BaseForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.utils.http import urlsafe_base64_decode
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe
from django.views.generic import FormView

from newdreamflow.accounts import services
from newdreamflow.accounts.forms import (
    AddressForm,
    ChangePasswordForm,
    DeleteForm,
    NewPasswordForm,
    ResetForm,
    SignInForm,
    SignUpForm,
)
from newdreamflow.accounts.limits import MAIL_BY_CALLER, SIGN_IN, SIGN_UP, Limit, TooOftenError, caller, spend
from newdreamflow.accounts.models import User
from newdreamflow.accounts.tokens import confirmation_tokens
from newdreamflow.dreams import ledger
from newdreamflow.dreams.conf import dreams_settings

__all__ = [
    "AccountDelete",
    "AddressChange",
    "PasswordChange",
    "PasswordReset",
    "PasswordResetConfirm",
    "SignIn",
    "SignUp",
    "account",
    "admin_sign_in",
    "confirm",
    "confirm_address",
]

_BACKEND: Final = "newdreamflow.accounts.backends.NameOrAddressBackend"


class _LimitedMixin:
    """A form that one caller may send so often."""

    limit: Limit
    counts_refused = True
    """Whether a form counts that was refused, such as for a typo."""

    def dispatch(self, request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponseBase:  # noqa: ANN401
        """Count, or say when to come back."""
        try:
            if request.method == "POST" and self.counts_refused:
                spend(self.limit, caller(request))
            response: HttpResponseBase = super().dispatch(  # type: ignore[misc]  # a view is beside this mixin
                request, *arguments, **named
            )
        except TooOftenError as error:
            context = {"minutes": -(-error.wait_s // 60)}
            response = render(request, "accounts/too_often.html", context, status=HTTPStatus.TOO_MANY_REQUESTS)
            response["Retry-After"] = str(error.wait_s)
        return response


class SignIn(_LimitedMixin, views.LoginView):
    """Sign in."""

    limit = SIGN_IN
    template_name = "accounts/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def get_success_url(self) -> str:
        """Where to go afterwards; not here again, which Django takes for a mistake of ours."""
        url = super().get_success_url()
        return self.get_default_redirect_url() if url == self.request.path else url


@method_decorator((sensitive_post_parameters("password"), never_cache), name="dispatch")
class SignUp(_LimitedMixin, views.RedirectURLMixin, FormView):  # type: ignore[type-arg]  # generic in the stubs alone
    """Sign up."""

    limit = SIGN_UP
    counts_refused = False
    template_name = "accounts/sign_up.html"
    form_class = SignUpForm
    next_page = settings.LOGIN_REDIRECT_URL

    def get_context_data(self, **context: Any) -> dict[str, Any]:  # noqa: ANN401 -- Django's own signature
        """Where to go afterwards travels with the form."""
        return super().get_context_data(**context) | {"next": self.get_redirect_url()}

    def form_valid(self, form: SignUpForm) -> HttpResponse:
        """Make the account."""
        cleaned = form.cleaned_data
        attempt = spend(self.limit, caller(self.request))
        try:
            user = services.sign_up(username=cleaned["username"], email=cleaned["email"], password=cleaned["password"])
        except services.NameTakenError:
            form.add_error("username", "Somebody else has this name. Please choose another one.")
        except services.AddressTakenError:
            form.add_error("email", "This address has an account already. You can have its password reset.")
        except services.MailNotSentError:
            form.add_error(None, "The mail to you could not be sent, so no account was made. Please try again later.")
        else:
            if user is None:
                return render(self.request, "accounts/mail_sent.html", {"email": cleaned["email"]})
            login(self.request, user, backend=_BACKEND)
            return redirect(self.get_success_url())
        attempt.delete()
        return self.form_invalid(form)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """Switch an account on. By a button: programs that look into mail follow links too."""
    user = _pending_user(uid)
    if user is None or not confirmation_tokens.check_token(user, token):
        return render(request, "accounts/confirm.html", {"is_valid": False}, status=HTTPStatus.NOT_FOUND)
    if request.method != "POST":
        return render(request, "accounts/confirm.html", {"is_valid": True, "username": user.username})
    services.confirm(user=user)
    messages.success(request, "Your account is ready. Please sign in.")
    return redirect("accounts:sign-in")


def _pending_user(uid: str) -> User | None:
    try:
        return User.objects.filter(pk=int(urlsafe_base64_decode(uid)), is_pending=True).first()
    except (ValueError, OverflowError):
        return None


class _OwnFormView(_LimitedMixin, LoginRequiredMixin, FormView):  # type: ignore[type-arg]  # generic in the stubs alone
    """A form about one's own account, sent with the password. Guesses count like those of signing in."""

    limit = SIGN_IN

    def get_form_kwargs(self) -> dict[str, Any]:
        """Whose it is."""
        return super().get_form_kwargs() | {"user": self.request.user}


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
class AddressChange(_OwnFormView):
    """Change the address."""

    template_name = "accounts/address_change.html"
    form_class = AddressForm

    def form_valid(self, form: AddressForm) -> HttpResponse:
        """Change it, or send a link to the new one."""
        email = form.cleaned_data["email"]
        try:
            is_done = services.change_address(user=form.user, email=email)
        except services.AddressTakenError:
            form.add_error("email", "Another account has this address.")
            return self.form_invalid(form)
        except services.MailNotSentError:
            form.add_error(None, "The mail could not be sent, so nothing was changed. Please try again later.")
            return self.form_invalid(form)
        if is_done:
            messages.success(self.request, "Your address is changed.")
        else:
            messages.success(self.request, f"Follow the link in the mail to {email} within a day to change it.")
        return redirect("accounts:account")


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def confirm_address(request: HttpRequest, token: str) -> HttpResponse:
    """Take the new address. By a button: programs that look into mail follow links too."""
    user = cast("User", request.user)
    email = services.address_change_of(token, user=user)
    if email is None:
        return render(request, "accounts/address_confirm.html", {"email": None}, status=HTTPStatus.NOT_FOUND)
    if request.method != "POST":
        return render(request, "accounts/address_confirm.html", {"email": email})
    try:
        services.confirm_address(user=user, email=email)
    except services.AddressTakenError:
        return render(request, "accounts/address_confirm.html", {"email": None}, status=HTTPStatus.NOT_FOUND)
    messages.success(request, "Your address is changed.")
    return redirect("accounts:account")


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
class AccountDelete(_OwnFormView):
    """Delete one's account."""

    template_name = "accounts/delete.html"
    form_class = DeleteForm

    def form_valid(self, form: DeleteForm) -> HttpResponse:
        """Delete it."""
        services.delete_account(user=form.user)
        logout(self.request)
        messages.success(self.request, "Your account and your dreams are deleted.")
        return redirect("dreams:gallery")


class PasswordReset(_LimitedMixin, views.PasswordResetView):
    """Ask for a link."""

    limit = MAIL_BY_CALLER
    template_name = "accounts/password_reset.html"
    form_class = ResetForm
    email_template_name = "accounts/mail/password_reset.txt"
    subject_template_name = "accounts/mail/password_reset_subject.txt"
    success_url = reverse_lazy("accounts:password-reset-done")

    def form_valid(self, form: PasswordResetForm) -> HttpResponse:
        """Send it, with the site's own address in it and not the request's `Host`."""
        url = urlsplit(settings.SITE_URL)
        form.save(
            domain_override=url.netloc,
            use_https=url.scheme == "https",
            subject_template_name=self.subject_template_name,
            email_template_name=self.email_template_name,
            request=self.request,
        )
        return redirect(self.get_success_url())


class PasswordResetConfirm(views.PasswordResetConfirmView):
    """Choose a new password, by the link."""

    template_name = "accounts/password_reset_confirm.html"
    form_class = NewPasswordForm
    success_url = reverse_lazy("accounts:password-reset-complete")


class PasswordChange(views.PasswordChangeView):
    """Choose a new password, by the old one."""

    template_name = "accounts/password_change.html"
    form_class = ChangePasswordForm
    success_url = reverse_lazy("accounts:account")

    def form_valid(self, form: BaseForm) -> HttpResponse:
        """Change it, and say so."""
        messages.success(self.request, "Your password is changed.")
        return super().form_valid(form)  # type: ignore[arg-type]  # the stubs name the form's class


@login_required
@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """One's own page: who one is here, and what is left to dream with."""
    left = ledger.balance(request.user)
    context = {
        "left": left,
        "is_nearly_empty": left < dreams_settings.DREAMS_PRICE_PER_WORK_UNIT,
        "price": dreams_settings.DREAMS_PRICE_PER_WORK_UNIT,
    }
    return render(request, "accounts/account.html", context)


def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """The staff's pages have no sign-in of their own: one form, one lock, one limit."""
    if request.user.is_authenticated:
        raise Http404
    return redirect_to_login(request.GET.get("next", ""), settings.LOGIN_URL)
