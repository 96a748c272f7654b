import io
import random

import numpy as np
import pytest
from PIL import Image

from dreamprm.world.scene import COLOURS, SIZE, STYLES, Scene, Thing, caption, draw, sample_scene


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw(scene)))).astype(int)


def painted(image: np.ndarray, colour: str) -> int:
    # Pixel noise is at most 12 per channel, colours differ by far more.
    return int((np.abs(image - np.array(COLOURS[colour])).max(axis=-1) <= 12).sum())


def test_the_number_of_dots_is_the_value():
    for value in range(1, 10):
        scene = Scene("dots", (Thing("red", value, 2),), 5)
        assert painted(pixels(scene), "red") == 9 * value  # a dot is 3 x 3 pixels


def test_the_height_of_a_bar_is_three_pixels_a_unit():
    for value in range(1, 10):
        image = pixels(Scene("bars", (Thing("blue", value, 1),), 3))
        rows = [painted(image[row : row + 1], "blue") > 0 for row in range(SIZE)]
        assert sum(rows) == 3 * value


def test_every_digit_looks_different():
    glyphs = {pixels(Scene("digits", (Thing("green", value, 0),), 1)).tobytes() for value in range(1, 10)}
    assert len(glyphs) == 9


def test_the_same_scene_gives_the_same_bytes_and_the_seed_moves_it():
    scene = Scene("dots", (Thing("red", 4, 0), Thing("blue", 2, 3)), 7)
    first = draw(scene)
    draw.cache_clear()
    assert draw(scene) == first
    assert draw(Scene(scene.style, scene.things, 8)) != first


def test_sampled_scenes_cover_all_values_without_repeating_colours_or_slots():
    rng = random.Random(0)
    scenes = [sample_scene(style, count, rng) for style in STYLES for count in (1, 2, 3, 4) for _ in range(50)]
    assert {thing.value for scene in scenes for thing in scene.things} == set(range(1, 10))
    for scene in scenes:
        slots = [thing.slot for thing in scene.things]
        assert slots == sorted(set(slots))
        assert len(scene.values) == len(scene.things)
        assert caption(scene).split()[0::2] == [thing.colour for thing in scene.things]


def test_a_scene_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="1 to 4 things"):
        sample_scene("digits", 5, random.Random(0))
    with pytest.raises(ValueError, match="digits"):
        sample_scene("oil", 1, random.Random(0))
