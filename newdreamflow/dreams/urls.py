"""URLs of dreams."""

from __future__ import annotations

from django.urls import path

from newdreamflow.dreams import picture_views, views

app_name = "dreams"
urlpatterns = [
    path("", views.gallery, name="gallery"),
    path("mine/", views.mine, name="mine"),
    path("costs/", views.costs, name="costs"),
    path("dream/", views.new, name="new"),
    path("dream/photo/<slug:name>/", picture_views.photo, name="photo"),
    path("dream/<uuid:uuid>/", views.dream, name="dream"),
    path("dream/<uuid:uuid>/events", views.events, name="events"),
    path("dream/<uuid:uuid>/progress", views.progress, name="progress"),
    path("dream/<uuid:uuid>/cancel", views.cancel, name="cancel"),
    path("dream/<uuid:uuid>/delete", views.delete, name="delete"),
    path("dream/<uuid:uuid>/publish", views.publish, name="publish"),
    path("dream/<uuid:uuid>/again", views.again, name="again"),
    path("dream/<uuid:uuid>/input/", picture_views.input_image, name="input"),
    path("dream/<uuid:uuid>/mask/", picture_views.mask, name="mask"),
    path("dream/<uuid:uuid>/<int:index>/", picture_views.picture, name="picture"),
    path("dream/<uuid:uuid>/<int:index>/small/", picture_views.thumbnail, name="thumbnail"),
]
