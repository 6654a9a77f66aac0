"""URL routes of the site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from newdreamflow.accounts.views import admin_sign_in

admin.site.site_header = admin.site.site_title = "newdreamflow"
admin.site.index_title = "Staff"
admin.site.enable_nav_sidebar = False  # its state would have to be written into the page

urlpatterns = [
    path("accounts/", include("newdreamflow.accounts.urls")),
    path("admin/login/", admin_sign_in),
    path("admin/", admin.site.urls),
    path("staff/", include("newdreamflow.dreams.staff_urls")),
    path("", include("newdreamflow.dreams.urls")),
]
