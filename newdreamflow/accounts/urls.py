"""URLs of accounts: sign-up, sign-in, sign-out."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView, PasswordResetCompleteView, PasswordResetDoneView
from django.urls import path

from newdreamflow.accounts import views

app_name = "accounts"
urlpatterns = [
    path("", views.account, name="account"),
    path("address/", views.AddressChange.as_view(), name="address-change"),
    path("address/<token>/", views.confirm_address, name="address-confirm"),
    path("delete/", views.AccountDelete.as_view(), name="delete"),
    path("sign-up/", views.SignUp.as_view(), name="sign-up"),
    path("confirm/<uid>/<token>/", views.confirm, name="confirm"),
    path("sign-in/", views.SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("password/", views.PasswordChange.as_view(), name="password-change"),
    path("password/reset/", views.PasswordReset.as_view(), name="password-reset"),
    path(
        "password/reset/sent/",
        PasswordResetDoneView.as_view(template_name="accounts/password_reset_done.html"),
        name="password-reset-done",
    ),
    path("password/reset/<uidb64>/<token>/", views.PasswordResetConfirm.as_view(), name="password-reset-confirm"),
    path(
        "password/reset/done/",
        PasswordResetCompleteView.as_view(template_name="accounts/password_reset_complete.html"),
        name="password-reset-complete",
    ),
]
