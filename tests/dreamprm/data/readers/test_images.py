"""Images: paths that climb out, bombs of pixels, broken files, and what a good one becomes."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dreamprm.data.readers import ImageError, image_size, load_image, read
from dreamprm.data.readers.images import as_images, safe_path
from dreamprm.data.record import RecordError


def _bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more pixels than its data hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "name",
    ["../x.png", "/etc/passwd", "a/../../x.png", "a\\..\\..\\x.png", "x\x00.png", "https://e.org/x.png", "a/..", "."],
)
def test_paths_that_leave_the_root_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"path|address"):
        safe_path(name, tmp_path)


def test_paths_below_the_root_are_kept(tmp_path: Path) -> None:
    assert safe_path("a/b.png", tmp_path) == tmp_path / "a/b.png"
    assert safe_path("a/../b.png", tmp_path) == tmp_path / "b.png"
    assert safe_path(str(tmp_path / "c.png"), tmp_path) == tmp_path / "c.png"


def test_links_out_of_the_root_need_leave(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(make_png())
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(outside, root / "link.png")
    os.symlink(tmp_path, root / "folder")
    for name in ("link.png", "folder/outside.png"):
        with pytest.raises(ImageError, match="follows a link out"):
            safe_path(name, root)
        assert load_image(safe_path(name, root, follow_links=True)).size == (8, 8)


def test_bombs_of_pixels_are_refused_before_they_are_decoded(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    for size in ((60_000, 60_000), (10_000, 6_000)):
        with pytest.raises(ImageError, match=r"pixels; at most|cannot be read"):
            load_image(_bomb(*size))
    (tmp_path / "bomb.png").write_bytes(_bomb(60_000, 60_000))
    with pytest.raises(ImageError, match=r"bomb\.png"):
        image_size(tmp_path / "bomb.png")
    coded = base64.b64encode(_bomb(20_000, 20_000)).decode()
    with pytest.raises(RecordError, match=r"rows\.jsonl, row 1, images\[0\]: image of 69 bytes.*400000000 pixels"):
        list(read(write_rows({"question": "q", "steps": ["s"], "images": [coded]})))


def test_missing_cut_and_foreign_images_are_clear_errors(tmp_path: Path, make_png: Callable[..., bytes]) -> None:
    with pytest.raises(ImageError, match=r"none\.png cannot be read: No such file"):
        load_image(tmp_path / "none.png")
    noise = PIL.Image.effect_noise((64, 64), 90).convert("RGB")
    stream = io.BytesIO()
    noise.save(stream, "PNG")
    for data in (stream.getvalue()[:-200], b"%PDF-1.4", b"<svg/>", b"\x89PNG"):
        with pytest.raises(ImageError, match=r"broken or cut|cannot be read"):
            load_image(data)


def test_a_good_image_is_rgb_upright_and_bounded(make_png: Callable[..., bytes]) -> None:
    stream = io.BytesIO()
    PIL.Image.new("RGBA", (40, 20), (255, 0, 0, 0)).save(stream, "PNG")
    image = load_image(stream.getvalue(), max_side=10)
    assert (image.mode, image.size) == ("RGB", (10, 5))
    assert image.getpixel((3, 3)) == (255, 255, 255), "what is transparent is white"
    turned = io.BytesIO()
    photo = PIL.Image.new("RGB", (30, 10))
    exif = photo.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    photo.save(turned, "JPEG", exif=exif)
    assert load_image(turned.getvalue()).size == (10, 30)


@pytest.mark.parametrize("value", [7, True, {"url": "x"}, "data:image/png;base64,%%%", "A" * 80, [["a.png"]], [None]])
def test_values_that_are_no_image_are_refused(value: Any, write_rows: Callable[..., Path]) -> None:
    with pytest.raises(RecordError, match="row 1, image"):
        list(read(write_rows({"question": "q", "steps": ["s"], "image": value})))


def test_the_spellings_of_an_image(
    write_rows: Callable[..., Path], tmp_path: Path, make_png: Callable[..., bytes]
) -> None:
    coded = base64.b64encode(make_png()).decode()
    values = [
        "a.png",
        ["a.png", "b.png"],
        coded,
        f"data:image/png;base64,{coded}",
        {"path": "a.png"},
        "['a.png']",
        "",
        None,
    ]
    rows = [{"question": "q", "steps": ["s"], "image": value} for value in values]
    images = [record.images for record in read(write_rows(*rows))]
    path = tmp_path / "a.png"
    assert images == [(path,), (path, tmp_path / "b.png"), (make_png(),), (make_png(),), (path,), (path,), (), ()]


def _png(image: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_transparency_of_every_kind_stands_on_white() -> None:
    clear = PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    palette = PIL.Image.new("P", (4, 4), 3)
    palette.putpalette([0] * 768)
    grey = PIL.Image.new("L", (4, 4), 7)
    for data in (
        _png(clear),
        _png(PIL.Image.new("LA", (4, 4), (0, 0))),
        _png(palette, transparency=3),
        _png(grey, transparency=7),
        _png(PIL.Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)),
        _png(clear, "WEBP", lossless=True),
    ):
        assert np.all(np.asarray(load_image(data)) == 255)


def test_greys_of_more_than_eight_bits_are_scaled_not_clipped() -> None:
    half = np.array([[0, 32_896], [65_535, 257]], np.uint16)  # 257 is one of 255 levels
    for data in (_png(PIL.Image.fromarray(half)), _png(PIL.Image.fromarray(half), "TIFF")):
        assert np.asarray(load_image(data))[..., 0].tolist() == [[0, 128], [255, 1]]
    unit = PIL.Image.fromarray(np.array([[0.0, 0.5], [1.0, float("nan")]], np.float32))
    assert np.asarray(load_image(_png(unit, "TIFF")))[..., 0].tolist() == [[0, 128], [255, 0]]
    byte = PIL.Image.fromarray(np.array([[0.0, 128.0], [255.0, 1.0]], np.float32))
    assert np.asarray(load_image(_png(byte, "TIFF")))[..., 0].tolist() == [[0, 128], [255, 1]]
    wide = PIL.Image.fromarray(np.array([[-1000.0, 1000.0]], np.float32))
    assert np.asarray(load_image(_png(wide, "TIFF")))[..., 0].tolist() == [[0, 255]]


def test_no_other_program_is_started_and_no_pipe_waited_for(tmp_path: Path) -> None:
    postscript = tmp_path / "x.png"
    postscript.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="is none of PNG, JPEG"):
        load_image(postscript)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(ImageError, match="is no regular file"):
        load_image(pipe)
    with pytest.raises(ImageError, match="is no regular file"):
        load_image(tmp_path)


def test_images_as_callers_give_them(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (6, 4), (10, 20, 30))
    picture.save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    for given in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), picture, picture.convert("CMYK")):
        for images in (given, [given]):
            (image,) = as_images(images)
            assert load_image(image).size == (6, 4)
    assert np.array_equal(load_image(as_images(picture)[0]), load_image(path))
    assert as_images(None) == () == as_images([])
    for wrong in (3, [3], [None]):
        with pytest.raises(ImageError, match="must be"):
            as_images(wrong)  # pyright: ignore[reportArgumentType]
