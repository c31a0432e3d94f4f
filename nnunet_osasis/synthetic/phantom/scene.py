"""Geometry of a phantom scene: a bowel segment with haustral folds and polyps, hit by the camera's rays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

FIELD_OF_VIEW = 0.95
"""Tangent of half the angle of view, about 87 degrees from edge to edge."""

MARCH_STEPS = 120
"""Number of steps after which a ray ends."""

TOUCH = 2e-3
"""Distance to the surface below which a ray has arrived."""

FAR = 9.0
"""Length at which a ray ends, in radii of the bowel."""


@dataclass(frozen=True, kw_only=True)
class Dome:
    """A raised, lumpy dome on the wall: a polyp, or a residue of stool that only looks like one.

    Attributes:
        center: ``(3,)``.
        axes: orthonormal rows along, across and into the lumen, ``(3, 3)``.
        radii: of the ellipsoid along those axes, ``(3,)``.
        lumps: wave vectors of its lobulation, ``(K, 3)``.
    """

    center: np.ndarray
    axes: np.ndarray
    radii: np.ndarray
    lumps: np.ndarray

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the approximate signed distance ``(N,)`` of ``points`` ``(N, 3)`` to the dome, positive outside."""
        local = (points - self.center) @ self.axes.T
        scaled = np.sqrt(np.sum((local / self.radii) ** 2, axis=1)) + 1e-9
        gradient = np.sqrt(np.sum((local / self.radii**2) ** 2, axis=1)) + 1e-9
        lumps = np.sin(local @ self.lumps.T).sum(axis=1) * 0.07 * self.radii.min()
        return (scaled - 1) * scaled / gradient + lumps


@dataclass(frozen=True, kw_only=True)
class Bowel:
    """A tube of radius about 1 around a bending axis, looked into from the origin along +z.

    Attributes:
        offset: of the axis ``offset + slope z + bend z**2``, ``(2,)``.
        slope: of the axis, ``(2,)``.
        bend: of the axis, ``(2,)``.
        fold_depths: places of the haustral folds along the axis, ``(F,)``.
        fold_heights: how far each reaches into the lumen, ``(F,)``.
        fold_widths: their widths along the axis, ``(F,)``.
        fold_tilts: their tilts, as depth at the rim, ``(F,)``.
        fold_phases: directions of their tilts and lobes, ``(F,)``.
        lobes: how strongly the folds leave the lumen three-cornered, 0 to 1.
        waves: wave vectors of the wall's gentle unevenness, ``(K, 3)``.
        polyps: domes on the wall that belong to the mask.
        residues: domes on the wall that do not.
    """

    offset: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    fold_depths: np.ndarray
    fold_heights: np.ndarray
    fold_widths: np.ndarray
    fold_tilts: np.ndarray
    fold_phases: np.ndarray
    lobes: float
    waves: np.ndarray
    polyps: tuple[Dome, ...] = ()
    residues: tuple[Dome, ...] = ()

    def axis(self, depth: np.ndarray) -> np.ndarray:
        """Return the center of the tube ``(N, 2)`` at ``depth`` ``(N,)``."""
        bounded = np.clip(depth, 0, FAR)[:, None]
        return self.offset + self.slope * bounded + self.bend * bounded**2

    def radius(self, angle: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Return the distance ``(N,)`` of the wall from the axis at ``angle`` and ``depth``."""
        where = depth[:, None] - self.fold_depths - self.fold_tilts * np.cos(angle[:, None] - self.fold_phases)
        ridge = np.exp(-(np.abs(where / self.fold_widths) ** 1.6))
        lobed = 1 - self.lobes * (0.5 + 0.5 * np.cos(3 * angle[:, None] + self.fold_phases))
        return 1.0 - np.sum(self.fold_heights * ridge * lobed, axis=1)

    def wall_distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance ``(N,)`` of ``points`` ``(N, 3)`` to the wall along the radius, positive in the lumen."""
        across = points[:, :2] - self.axis(points[:, 2])
        angle = np.arctan2(across[:, 1], across[:, 0])
        uneven = np.sin(points @ self.waves.T).sum(axis=1) * 0.012
        return self.radius(angle, points[:, 2]) - np.hypot(across[:, 0], across[:, 1]) + uneven

    def distance(self, points: np.ndarray, soft: float = 0.15) -> np.ndarray:
        """Return the free distance to wall or dome ``(N,)``; the two meet in a fillet of about ``soft``."""
        free = self.wall_distance(points)
        for raised in self.polyps + self.residues:
            dome = raised.distance(points)
            blend = np.clip(0.5 + 0.5 * (free - dome) / soft, 0, 1)
            free = blend * dome + (1 - blend) * free - soft * blend * (1 - blend)
        return free

    def share(self, domes: tuple[Dome, ...], points: np.ndarray, soft: float = 0.15) -> np.ndarray:
        """Return how much each surface point belongs to a dome, ``(N,)`` in [0, 1]; a mask's edge is at one half."""
        wall = self.wall_distance(points)
        share = np.zeros(len(points))
        for dome in domes:
            share = np.maximum(share, np.clip(0.5 + 0.5 * (wall - dome.distance(points)) / soft, 0, 1))
        return share

    def normals(self, points: np.ndarray, step: float = 4e-3) -> np.ndarray:
        """Return unit normals ``(N, 3)`` pointing into the lumen, by central differences."""
        gradient = np.empty_like(points)
        for dimension in range(3):
            shift = np.zeros(3)
            shift[dimension] = step
            gradient[:, dimension] = self.distance(points + shift) - self.distance(points - shift)
        return gradient / (np.linalg.norm(gradient, axis=1, keepdims=True) + 1e-12)


def camera_rays(size: int) -> np.ndarray:
    """Return unit directions ``(size * size, 3)`` of the pixels, row by row."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    directions = np.stack([columns * FIELD_OF_VIEW, rows * FIELD_OF_VIEW, np.ones_like(rows)], axis=-1).reshape(-1, 3)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def first_hits(bowel: Bowel, directions: np.ndarray) -> np.ndarray:
    """Return where each ray from the origin first meets the surface, ``(N, 3)``; other rays end far away."""
    travelled = np.full(len(directions), 0.05)
    under_way = np.arange(len(directions))
    for _ in range(MARCH_STEPS):
        free = bowel.distance(directions[under_way] * travelled[under_way, None])
        # Folds make the radial distance steeper than 1, so only part of it may be stepped without passing through;
        # the least step takes rays past a fold's edge that they nearly touch.
        step = np.where(free > TOUCH, np.maximum(0.6 * free, 0.006), 0.0)
        travelled[under_way] = np.minimum(travelled[under_way] + step, FAR)
        under_way = under_way[(step > 0) & (travelled[under_way] < FAR)]
        if not len(under_way):
            break
    return directions * travelled[:, None]


def draw_bowel(rng: np.random.Generator) -> Bowel:
    """Draw a bowel segment with one polyp (in one of eight scenes two) and up to two residues of the same shapes."""
    depths = np.cumsum(rng.uniform(0.8, 1.5, size=6)) + rng.uniform(0.2, 1.0)
    count = len(depths)
    bare = Bowel(
        offset=rng.uniform(-0.25, 0.25, 2),
        slope=rng.uniform(-0.25, 0.25, 2),
        bend=rng.uniform(-0.06, 0.06, 2),
        fold_depths=depths,
        fold_heights=rng.uniform(0.14, 0.45, count),
        fold_widths=rng.uniform(0.14, 0.34, count),
        fold_tilts=rng.uniform(-0.35, 0.35, count),
        fold_phases=rng.uniform(0, 2 * np.pi, count),
        lobes=rng.uniform(0.3, 0.9),
        waves=rng.uniform(-4.5, 4.5, (4, 3)),
    )
    number = 2 if rng.random() < 1 / 8 else 1
    polyps = tuple(_draw_dome(rng, bare) for _ in range(number))
    residues = tuple(_draw_dome(rng, bare) for _ in range(rng.integers(0, 3)))
    return replace(bare, polyps=polyps, residues=residues)


def _draw_dome(rng: np.random.Generator, bowel: Bowel) -> Dome:
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(1.3, 2.5)
    outward = np.array([np.cos(angle), np.sin(angle), 0.0])
    reach = bowel.radius(np.array([angle]), np.array([depth]))[0]
    foot = np.append(bowel.axis(np.array([depth]))[0], depth) + reach * outward
    along = np.array([0.0, 0.0, 1.0])
    axes = np.stack([along, np.cross(outward, along), -outward])
    base = rng.uniform(0.26, 0.56)
    radii = base * np.array([rng.uniform(0.8, 1.4), rng.uniform(0.8, 1.4), rng.uniform(0.5, 0.95)])
    # Sessile polyps sit deep in the wall, pedunculated ones stand out of it.
    center = foot + outward * radii[2] * rng.uniform(-0.35, 0.45)
    return Dome(center=center, axes=axes, radii=radii, lumps=rng.uniform(-9, 9, (3, 3)) / base * 0.3)
