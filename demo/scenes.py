"""What a scene of the demo world is: sampling one, and rendering it to pixels.

A scene is a square picture with one to four flat shapes, each in a cell of a 3x3 grid. No two shapes of a scene
agree in both colour and kind, so "the red circle" always names at most one of them.

Legend: N vertices; H, W pixels (H = W = SIDE).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 96
"""Side of a picture, in pixels."""

CELL = SIDE // 3
KINDS: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 36),
    "green": (28, 150, 52),
    "blue": (36, 70, 214),
    "yellow": (240, 222, 40),
    "orange": (244, 136, 20),
    "purple": (140, 40, 170),
    "white": (248, 248, 248),
    "black": (14, 14, 14),
}
SIZES: dict[str, tuple[float, float]] = {"small": (17.0, 19.5), "large": (27.0, 30.0)}
"""Range of a shape's extent in pixels."""

PLACES: tuple[str, ...] = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
"""Cells of the grid in reading order."""

Signature = frozenset[tuple[str, str, str, int]]
"""What a scene shows: kind, colour, size and cell of each shape."""

_COUNT_WEIGHTS = (0.2, 0.3, 0.3, 0.2)
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Shape:
    """One shape: its attributes, and its outline in pixels."""

    kind: str
    colour: str
    size: str
    cell: int
    outline: tuple[tuple[float, float], ...]

    @property
    def place(self) -> str:
        """Name of the cell, such as ``top left``."""
        return PLACES[self.cell]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """``(x, y, width, height)`` in pixels, as COCO writes it."""
        xs, ys = zip(*self.outline, strict=True)
        return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))

    @property
    def area(self) -> float:
        """Area inside the outline, in square pixels (shoelace formula)."""
        points_N2 = np.asarray(self.outline)
        following_N2 = np.roll(points_N2, -1, axis=0)
        cross_N = points_N2[:, 0] * following_N2[:, 1] - following_N2[:, 0] * points_N2[:, 1]
        return float(abs(cross_N.sum()) / 2)


@dataclass(frozen=True)
class Scene:
    """One to four shapes in reading order."""

    shapes: tuple[Shape, ...]

    @property
    def signature(self) -> Signature:
        """What the scene shows, without the jitter: two scenes with one signature look alike."""
        return frozenset((shape.kind, shape.colour, shape.size, shape.cell) for shape in self.shapes)


def _unit_outline(kind: str) -> np.ndarray:
    """Outline of a kind, ``(N, 2)``; the longer side of its box is 1."""
    turn = 2 * np.pi

    def polygon(corners: int, radii: tuple[float, ...] = (1.0,), start: float = -turn / 4) -> np.ndarray:
        angles_N = start + turn * np.arange(corners) / corners
        radii_N = np.resize(np.asarray(radii), corners)
        return np.stack([radii_N * np.cos(angles_N), radii_N * np.sin(angles_N)], axis=1)

    if kind == "circle":
        points_N2 = polygon(32)
    elif kind == "square":
        points_N2 = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)
    elif kind == "triangle":
        points_N2 = np.array([[0, -1], [1, 1], [-1, 1]], dtype=float)
    elif kind == "star":
        points_N2 = polygon(10, radii=(1.0, 0.42))
    elif kind == "cross":
        arm = 0.34
        quarter = np.array([[-arm, -1], [arm, -1], [arm, -arm]])
        rotations = [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in turn * np.arange(4) / 4]
        points_N2 = np.concatenate([quarter @ rotation for rotation in rotations])
    elif kind == "ring":
        # One closed line, out and back along a seam: its shoelace area is that of the ring.
        outer_N2, inner_N2 = polygon(32), polygon(32) * 0.55
        points_N2 = np.concatenate([outer_N2, outer_N2[:1], inner_N2[:1], inner_N2[::-1]])
    else:
        raise ValueError(f"unknown kind of shape {kind!r}; known: {', '.join(KINDS)}")
    low_2, high_2 = points_N2.min(axis=0), points_N2.max(axis=0)
    return np.asarray((points_N2 - (low_2 + high_2) / 2) / (high_2 - low_2).max())


_OUTLINES = {kind: _unit_outline(kind) for kind in KINDS}


def _place_shape(rng: np.random.Generator, kind: str, colour: str, size: str, cell: int) -> Shape:
    extent = rng.uniform(*SIZES[size])
    slack = min((CELL - extent) / 2 - 0.5, 4.0)  # stays inside its cell, well away from the neighbouring ones
    row, column = divmod(cell, 3)
    centre_2 = (np.array([column, row]) + 0.5) * CELL + rng.uniform(-slack, slack, size=2)
    points_N2 = np.round(_OUTLINES[kind] * extent + centre_2, 2)
    return Shape(kind, colour, size, cell, tuple((float(x), float(y)) for x, y in points_N2))


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw one scene. Colours and kinds repeat often enough within a scene to make counting worth asking."""
    count = 1 + int(rng.choice(len(_COUNT_WEIGHTS), p=_COUNT_WEIGHTS))
    cells = sorted(int(cell) for cell in rng.choice(len(PLACES), size=count, replace=False))
    colours, shapes = tuple(COLOURS), list[Shape]()
    taken: set[tuple[str, str]] = set()
    for cell in cells:
        while True:
            kind, colour = str(rng.choice(KINDS)), str(rng.choice(colours))
            if shapes and (repeat := rng.random()) < 0.4:
                other = shapes[int(rng.integers(len(shapes)))]
                kind, colour = (other.kind, colour) if repeat < 0.2 else (kind, other.colour)
            if (kind, colour) not in taken:
                break
        taken.add((kind, colour))
        shapes.append(_place_shape(rng, kind, colour, str(rng.choice(tuple(SIZES))), cell))
    return Scene(tuple(shapes))


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw a scene as an RGB picture of ``SIDE`` x ``SIDE`` pixels: shaded, noisy background, jittered colours."""
    tone_3 = rng.uniform(95, 165) + rng.uniform(-10, 10, size=3)
    slope_2 = rng.uniform(-14, 14, size=2)
    ramp_S = np.linspace(-1, 1, SIDE)
    shade_HW = slope_2[0] * ramp_S[None, :] + slope_2[1] * ramp_S[:, None]
    pixels_HW3 = tone_3 + shade_HW[..., None]
    for shape in scene.shapes:
        mask = Image.new("L", (SIDE * _SUPERSAMPLING, SIDE * _SUPERSAMPLING))
        ImageDraw.Draw(mask).polygon([(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in shape.outline], fill=255)
        cover_HW1 = np.asarray(mask.reduce(_SUPERSAMPLING), dtype=np.float64)[..., None] / 255
        colour_3 = np.asarray(COLOURS[shape.colour]) + rng.uniform(-14, 14, size=3)
        pixels_HW3 = pixels_HW3 * (1 - cover_HW1) + colour_3 * cover_HW1
    pixels_HW3 = pixels_HW3 + rng.normal(0, 5, size=pixels_HW3.shape)
    return Image.fromarray(np.clip(np.rint(pixels_HW3), 0, 255).astype(np.uint8))


def jpeg_bytes(picture: Image.Image) -> bytes:
    """The picture as a JPEG file: quality 90, colour not subsampled (4:4:4), so that small shapes keep theirs."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90, subsampling=0)
    return buffer.getvalue()
