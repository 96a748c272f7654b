"""What an image of the world shows, and the program that draws it: 32 x 32 pixels, one to four coloured things.

Three styles show the same kind of content, a positive number per colour: `digits` (a glyph), `dots` (so many dots, in
random cells of a 3 x 3 lattice) and `bars` (a bar of that height). A scene's seed decides jitter, cells and pixel
noise; the same scene gives the same bytes on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["COLOURS", "LARGEST", "SIZE", "STYLES", "Scene", "Thing", "caption", "draw", "sample_scene"]

SIZE = 32
LARGEST = 9
STYLES = ("digits", "dots", "bars")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 60, 50),
    "green": (60, 190, 80),
    "blue": (70, 110, 240),
    "yellow": (240, 210, 60),
}
_BACKGROUND = (24, 24, 32)
_NOISE = 12
_SLOTS = 4
# Rows of a 3 x 5 glyph, three bits each.
_GLYPHS: dict[int, tuple[int, ...]] = {
    1: (2, 6, 2, 2, 7),
    2: (7, 1, 7, 4, 7),
    3: (7, 1, 3, 1, 7),
    4: (5, 5, 7, 1, 1),
    5: (7, 4, 7, 1, 7),
    6: (7, 4, 7, 5, 7),
    7: (7, 1, 2, 2, 2),
    8: (7, 5, 7, 5, 7),
    9: (7, 5, 7, 1, 7),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One coloured number of an image: its colour, its value in 1..9 and its place (quadrant, or column of a chart)."""

    colour: str
    value: int
    slot: int


@dataclass(frozen=True, slots=True)
class Scene:
    """An image as a program knows it; `things` stand in the order of their slots, each colour at most once."""

    style: str
    things: tuple[Thing, ...]
    seed: int

    @property
    def values(self) -> dict[str, int]:
        """The number that each colour shows."""
        return {thing.colour: thing.value for thing in self.things}


def sample_scene(style: str, num_things: int, rng: random.Random) -> Scene:
    """A scene of `num_things` (1..4) things: colours, slots and values uniform, colours and slots without repeats."""
    if style not in STYLES or not 1 <= num_things <= _SLOTS:
        raise ValueError(f"a scene is one of {STYLES} with 1 to {_SLOTS} things, not {style!r} with {num_things}")
    slots = sorted(rng.sample(range(_SLOTS), num_things))
    colours = rng.sample(list(COLOURS), num_things)
    things = tuple(Thing(c, rng.randint(1, LARGEST), s) for c, s in zip(colours, slots))
    return Scene(style, things, rng.getrandbits(31))


def caption(scene: Scene) -> str:
    """The dense description of a scene: every colour with its number, in the order of the slots."""
    return " ".join(f"{thing.colour} {thing.value}" for thing in scene.things)


@functools.lru_cache(maxsize=8192)
def draw(scene: Scene) -> bytes:
    """The scene as the bytes of a PNG file, the same on every machine."""
    rng = random.Random(scene.seed)
    canvas = np.empty((SIZE, SIZE, 3), dtype=np.int16)  # (row, column, channel)
    canvas[:] = _BACKGROUND
    for thing in scene.things:
        _PAINTERS[scene.style](canvas, thing, rng)
    noise = hashlib.shake_128(scene.seed.to_bytes(8, "little")).digest(canvas.size)
    canvas += np.frombuffer(noise, dtype=np.uint8).reshape(canvas.shape).astype(np.int16) % (2 * _NOISE + 1) - _NOISE
    buffer = io.BytesIO()
    Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _quadrant(slot: int) -> tuple[int, int]:
    half = SIZE // 2
    return (slot // 2) * half, (slot % 2) * half


def _paint_digits(canvas: np.ndarray, thing: Thing, rng: random.Random) -> None:
    top, left = _quadrant(thing.slot)
    top, left = top + 2 + rng.randint(0, 2), left + 4 + rng.randint(0, 2)
    for row, bits in enumerate(_GLYPHS[thing.value]):
        for column in range(3):
            if bits >> (2 - column) & 1:
                y, x = top + 2 * row, left + 2 * column
                canvas[y : y + 2, x : x + 2] = COLOURS[thing.colour]


def _paint_dots(canvas: np.ndarray, thing: Thing, rng: random.Random) -> None:
    top, left = _quadrant(thing.slot)
    for cell in rng.sample(range(9), thing.value):
        y, x = top + 1 + 5 * (cell // 3), left + 1 + 5 * (cell % 3)
        canvas[y : y + 3, x : x + 3] = COLOURS[thing.colour]


def _paint_bars(canvas: np.ndarray, thing: Thing, rng: random.Random) -> None:
    width, left = rng.randint(4, 6), thing.slot * (SIZE // _SLOTS) + 1
    canvas[SIZE - 2 - 3 * thing.value : SIZE - 2, left : left + width] = COLOURS[thing.colour]


_PAINTERS = {"digits": _paint_digits, "dots": _paint_dots, "bars": _paint_bars}
