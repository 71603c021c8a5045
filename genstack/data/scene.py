"""Scenes of coloured shapes: parameters, drawing, segmentation map and caption."""

from dataclasses import dataclass

import numpy as np
from einops import rearrange, reduce
from jaxtyping import Float, Int

SHAPES = ("circle", "square", "triangle", "ring")
COLOURS = {
    "red": (0.90, 0.12, 0.12),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.95, 0.92, 0.12),
    "green": (0.10, 0.65, 0.20),
    "cyan": (0.12, 0.82, 0.86),
    "blue": (0.12, 0.25, 0.92),
    "purple": (0.55, 0.15, 0.80),
    "pink": (0.98, 0.45, 0.75),
}
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
INNER = 0.5  # inner radius of a ring as a share of its outer one
SAMPLES = 4  # per pixel and side, for antialiasing


@dataclass(frozen=True)
class Thing:
    """One shape. Lengths are shares of the shorter side, positions are shares of height and width.

    Args:
        shape: one of SHAPES.
        colour: one of COLOURS.
        row: vertical position of the centre.
        column: horizontal position of the centre.
        radius: radius of a circle or ring, half the side of a square, circumradius of a triangle.
        tilt: rotation in degrees.
        light: brightness factor of the colour, about 1.
    """

    shape: str
    colour: str
    row: float
    column: float
    radius: float
    tilt: float = 0.0
    light: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def inside(self, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return True for points in the shape, given relative to its centre."""
        angle = np.deg2rad(self.tilt)
        x = right * np.cos(angle) + down * np.sin(angle)
        y = down * np.cos(angle) - right * np.sin(angle)
        distance = np.hypot(x, y)
        match self.shape:
            case "circle":
                return distance <= self.radius
            case "ring":
                return (self.radius * INNER <= distance) & (distance <= self.radius)
            case "square":
                return np.maximum(abs(x), abs(y)) <= self.radius
            case _:
                edges = [y, -y / 2 + x * np.sqrt(0.75), -y / 2 - x * np.sqrt(0.75)]
                return np.maximum.reduce(edges) <= self.radius / 2


@dataclass(frozen=True)
class Scene:
    """Things in front of a grey background with a linear brightness gradient.

    Args:
        things: the shapes, from back to front.
        brightness: brightness of the background at its centre, 0 to 1.
        slope: change of the brightness from top to bottom and from left to right.
    """

    things: tuple[Thing, ...]
    brightness: float = 0.1
    slope: tuple[float, float] = (0.0, 0.0)

    @property
    def caption(self) -> str:
        """`a red circle`, or `a red circle left of a blue square`."""
        first, *rest = self.things
        if not rest:
            return f"a {first.name}".replace("a orange", "an orange")
        second = rest[0]
        beside = abs(first.column - second.column) >= abs(first.row - second.row)
        before, after = sorted(self.things[:2], key=lambda thing: thing.column if beside else thing.row)
        words = f"a {before.name} {'left of' if beside else 'above'} a {after.name}"
        return words.replace("a orange", "an orange")

    def coverage(self, height: int, width: int) -> Float[np.ndarray, "things h w"]:
        """Share of each pixel that each thing covers."""
        short = min(height, width)
        down, right = (np.arange(side * SAMPLES) + 0.5 for side in (height, width))
        down, right = rearrange(down / SAMPLES, "h -> h 1"), rearrange(right / SAMPLES, "w -> 1 w")
        masks = np.zeros((len(self.things), height * SAMPLES, width * SAMPLES))
        for mask, thing in zip(masks, self.things, strict=True):
            # The corners of a square are furthest from the centre; the rest of the mask stays 0.
            near = thing.radius * 1.45
            rows, columns = (
                slice(*np.searchsorted(axis.ravel(), [short * (place - near), short * (place + near)]))
                for axis, place in ((down, thing.row * height / short), (right, thing.column * width / short))
            )
            mask[rows, columns] = thing.inside(
                (down[rows] - thing.row * height) / short, (right[:, columns] - thing.column * width) / short
            )
        return reduce(masks, "n (h y) (w x) -> n h w", "mean", y=SAMPLES, x=SAMPLES)

    def draw(self, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
        """Draw the picture, in [0, 1], antialiased."""
        down, right = ((np.arange(side) + 0.5) / side - 0.5 for side in (height, width))
        grey = self.brightness + self.slope[0] * down[:, None] + self.slope[1] * right[None, :]
        picture = np.repeat(grey[..., None], 3, axis=-1)
        for thing, share in zip(self.things, self.coverage(height, width), strict=True):
            colour = np.array(COLOURS[thing.colour]) * thing.light
            picture += share[..., None] * (colour - picture)
        return picture.clip(0, 1)

    def segmentation(self, height: int, width: int) -> Int[np.ndarray, "h w"]:
        """Segmentation map: 0 for the background, otherwise 1 + class."""
        segments = np.zeros((height, width), np.int64)
        for thing, share in zip(self.things, self.coverage(height, width), strict=True):
            segments[share >= 0.5] = 1 + CLASSES.index(thing.name)
        return segments
