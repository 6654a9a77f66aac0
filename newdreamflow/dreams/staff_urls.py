"""URL of the staff page."""

from __future__ import annotations

from django.urls import path

from newdreamflow.dreams import staff

app_name = "staff"
urlpatterns = [path("", staff.overview, name="overview")]
