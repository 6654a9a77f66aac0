"""Outlines of shapes as closed polygons. Every function returns (N, 2) float64 points; y points up, as on paper."""

import math
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, float]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, turn: float = 0.0) -> Points:
    """An ellipse around (x, y), turned counter-clockwise by `turn` radians."""
    points = _unit_circle(28) * (radius_x, radius_y)
    if turn:
        cos, sin = math.cos(turn), math.sin(turn)
        points = points @ np.array([[cos, sin], [-sin, cos]])
    moved: Points = points + np.array((x, y))
    return moved


def arch(x: float, y: float, radius_x: float, height: float) -> Points:
    """The upper half of an ellipse standing on the line at y."""
    points = _unit_circle(36)
    half: Points = points[:19] * (radius_x, height) + np.array((x, y))
    return half


def box(left: float, bottom: float, right: float, top: float, rounding: float = 0.0) -> Points:
    """A rectangle, its corners rounded by a radius."""
    if not rounding:
        return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    quarter = _unit_circle(24) * rounding
    inner = (
        (right - rounding, top - rounding),
        (left + rounding, top - rounding),
        (left + rounding, bottom + rounding),
        (right - rounding, bottom + rounding),
    )
    return np.concatenate(
        [quarter[np.arange(6 * k, 6 * k + 7) % 24] + np.array(corner) for k, corner in enumerate(inner)]
    )


def polygon(*points: Point) -> Points:
    """Straight edges through the given corners."""
    return np.array(points, dtype=np.float64)


def blob(*points: Point) -> Points:
    """A smooth closed curve through the given points (Catmull-Rom)."""
    return _spline(np.array(points, dtype=np.float64), closed=True)


def ribbon(points: Sequence[Point], width: float, end_width: float | None = None, *, smooth: bool = True) -> Points:
    """A stroke with round ends along a line, its width running from `width` to `end_width`."""
    path = np.array(points, dtype=np.float64)
    if smooth and len(path) > 2:
        path = _spline(path, closed=False)
    padded = np.concatenate([path[:1], path, path[-1:]])
    along = padded[2:] - padded[:-2]
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    across = along[:, ::-1] * np.array((-1.0, 1.0))
    last = width if end_width is None else end_width
    half = np.linspace(width, last, len(path))[:, None] / 2
    cap = np.linspace(0, math.pi, 7)[1:-1, None]
    end = path[-1] + last / 2 * (np.cos(cap) * across[-1] + np.sin(cap) * along[-1])
    start = path[0] - width / 2 * (np.cos(cap) * across[0] + np.sin(cap) * along[0])
    return np.concatenate([path + half * across, end, (path - half * across)[::-1], start])


def star(x: float, y: float, radius: float, inner: float, spikes: int = 5) -> Points:
    """A star with its first spike pointing up; `inner` is the radius of the notches."""
    angles = np.arange(2 * spikes) * math.pi / spikes + math.pi / 2
    radii = np.where(np.arange(2 * spikes) % 2 == 0, radius, inner)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)


def grown(points: Points, by: float) -> Points:
    """The polygon with its border moved outwards; corners are mitred, the sharpest ones cut at three times `by`."""
    following = np.concatenate([points[1:], points[:1]])
    ahead = following - points
    area = np.dot(points[:, 0], following[:, 1]) - np.dot(points[:, 1], following[:, 0])
    normals = ahead[:, ::-1] * (np.array((1.0, -1.0)) if area > 0 else np.array((-1.0, 1.0)))
    normals /= np.maximum(np.hypot(normals[:, 0], normals[:, 1]), 1e-9)[:, None]
    corner = normals + np.concatenate([normals[-1:], normals[:-1]])
    # |corner|^2 / 2 = 1 + cos(angle between the edges' normals); dividing by it makes the mitre.
    scale = np.maximum((corner**2).sum(axis=1) / 2, 0.22)
    grown_points: Points = points + corner * (by / scale)[:, None]
    return grown_points


def shrunk_towards_light(points: Points, share: float = 0.86) -> Points:
    """The part of a convex shape that the light from the upper left falls on; what is left over lies in shade."""
    nearest = points[int(np.argmax(points[:, 1] * 0.8 - points[:, 0] * 0.6))]
    lit: Points = nearest + (points - nearest) * share
    return lit


@cache
def _unit_circle(steps: int) -> Points:
    angles = np.arange(steps) * (2 * math.pi / steps)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@cache
def _spline_weights(steps: int) -> Points:
    t = np.arange(steps)[:, None] / steps
    return (
        np.concatenate([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1)
        / 2
    )


def _spline(points: Points, *, closed: bool) -> Points:
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    count = len(padded) - 3
    windows = padded[np.arange(count)[:, None] + np.arange(4)]
    curve = (_spline_weights(6) @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])
