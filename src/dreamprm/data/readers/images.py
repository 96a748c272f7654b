"""Images of a row: paths that stay below their root, bytes, base64; and loading them within limits."""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import PIL.ImageOps

from dreamprm.data.readers.fields import Row
from dreamprm.data.record import Image

__all__ = [
    "MAX_FILE",
    "MAX_PIXELS",
    "ImageError",
    "Images",
    "Picture",
    "as_image",
    "as_images",
    "image_size",
    "load_image",
    "read_images",
    "safe_path",
]

MAX_PIXELS = 50_000_000
"""Pixels of one image: 7,000 x 7,000 decoded is 150 MB; photographs of datasets have under 30 million."""
MAX_FILE = 64 * 2**20
MAX_IMAGES = 64
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


Picture = str | Path | bytes | PIL.Image.Image
Images = Picture | Iterable[Picture] | None
"""Images as callers from Python give them; records hold paths and encoded bytes alone."""


class ImageError(ValueError):
    """An image that is missing, broken, too large, or outside its root."""


@lru_cache(maxsize=65_536)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


@lru_cache(maxsize=1024)
def _absolute(folder: str) -> str:
    return os.path.abspath(folder)


def _below(path: str, folder: str) -> bool:
    """Whether a normal path is the folder or lies below it."""
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def safe_path(name: str, root: Path, *, follow_links: bool = False) -> Path:
    """`root / name`, checked to stay below `root`: no `..` beyond it, no other absolute path, no link that leads out.

    follow_links: allow symbolic links below the root to lead elsewhere (folders spread over disks, hub caches).
    Raises ImageError. The file need not exist.
    """
    if "\x00" in name or "\n" in name or len(name) > 4096:
        raise ImageError(f"not a path of a file: {name[:60]!r}")
    if "://" in name[:16]:
        raise ImageError(f"is an address, not a file: {name[:80]!r}; download the images first")
    base = _absolute(str(root))
    path = os.path.normpath(os.path.join(base, name.replace("\\", "/")))
    if not _below(path, base):
        raise ImageError(
            f"path {name[:120]!r} leads out of the image root {str(root)!r}; set data.images to the right root"
        )
    if path == base:
        raise ImageError(f"path {name[:120]!r} names the image root itself")
    if not follow_links:
        real_base, parent = _real_folder(base), _real_folder(os.path.dirname(path))
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(parent, os.path.basename(path))
        if not _below(real, real_base):
            raise ImageError(
                f"path {name[:120]!r} follows a link out of {str(root)!r}; data.follow_links=true allows it"
            )
    return Path(path)


def _decode_base64(text: str, row: Row, field: str) -> bytes:
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        row.fail("is neither a path nor base64 of an image", field)
    return _check_bytes(data, row, field)


def _check_bytes(data: bytes, row: Row, field: str) -> bytes:
    """Encoded bytes whose header is that of an image of allowed size; files behind paths are checked when loaded."""
    if not data.startswith(_SIGNATURES):
        row.fail("holds no known kind of image (PNG, JPEG, WebP, GIF, BMP, TIFF)", field)
    try:
        image_size(data)
    except ImageError as error:
        row.fail(str(error), field)
    return data


def _looks_like_base64(text: str) -> bool:
    # A path has a dot and an ending; base64 has neither a dot nor a colon, and images of 48 bytes do not exist.
    return text.startswith("data:") or (len(text) >= 64 and not any(c in text for c in ".:\\ "))


def _one(value: Any, row: Row, field: str, root: Path, follow_links: bool) -> Image:
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), (bytes, bytearray)):
            value = bytes(value["bytes"])
        elif isinstance(value.get("path"), str):
            value = value["path"]
        else:
            row.fail('an image object must hold "bytes" or "path"', field)
    if isinstance(value, bytes):
        return _check_bytes(value, row, field)
    if not isinstance(value, str) or not value.strip():
        row.fail("an image must be a path, base64, bytes, or {bytes, path}", field)
    if _looks_like_base64(value):
        return _decode_base64(value, row, field)
    try:
        return safe_path(value.strip(), root, follow_links=follow_links)
    except ImageError as error:
        row.fail(str(error), field)


def read_images(row: Row, value: Any, field: str, root: Path, *, follow_links: bool = False) -> tuple[Image, ...]:
    """The images of a field: a path, base64, a data address, bytes, `{"bytes", "path"}`, a list of these, nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        from dreamprm.data.readers.text import literal_list

        value = literal_list(row, value, field)
    if not isinstance(value, list):
        return (_one(value, row, field, root, follow_links),)
    if len(value) > MAX_IMAGES:
        row.fail(f"{len(value)} images; at most {MAX_IMAGES} are read", field)
    return tuple(_one(item, row, f"{field}[{i}]", root, follow_links) for i, item in enumerate(value))


def _name(image: Image) -> str:
    return f"image {image}" if isinstance(image, Path) else f"image of {len(image):,} bytes"


def _open(image: Image, max_pixels: int) -> PIL.Image.Image:
    name = _name(image)
    try:
        facts = image.stat() if isinstance(image, Path) else None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if facts is not None and not stat.S_ISREG(facts.st_mode):
        raise ImageError(f"{name}: is no regular file")  # to open a pipe would wait for ever
    size = facts.st_size if facts is not None else len(cast(bytes, image))
    if size > MAX_FILE:
        raise ImageError(f"{name}: {size:,} bytes; at most {MAX_FILE:,} are read")
    try:
        with warnings.catch_warnings():
            # Pillow warns at its own limit of pixels; ours is checked below, before anything is decoded.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            opened = PIL.Image.open(image if isinstance(image, Path) else io.BytesIO(image), formats=_FORMATS)
    except PIL.UnidentifiedImageError:
        raise ImageError(f"{name} cannot be read: is none of {', '.join(_FORMATS)}, whatever its name says") from None
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ImageError(f"{name} cannot be read ({str(error)[:120]})") from None
    width, height = opened.size
    if width * height > max_pixels or not width or not height:
        opened.close()
        raise ImageError(f"{name}: {width} x {height} pixels; at most {max_pixels:,} are read")
    return opened


def image_size(image: Image, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) from the header alone. Raises ImageError."""
    with _open(image, max_pixels) as opened:
        return opened.size


def load_image(image: Image, *, max_pixels: int = MAX_PIXELS, max_side: int | None = None) -> PIL.Image.Image:
    """The image as RGB: upright, on white where it is transparent, greys of 16 bits and of floats scaled to 8 bits.

    This is the one way to open an image: collator, policy and doctor use it, so that training and test see the same.
    `max_side` bounds the longest side in pixels. Raises ImageError if the file is missing, no regular file, broken,
    cut, of another kind than PNG, JPEG, WebP, GIF, BMP, TIFF, or of more than `max_pixels` pixels (checked before
    anything is decoded).
    """
    try:
        with _open(image, max_pixels) as opened:
            rgb = _as_rgb(PIL.ImageOps.exif_transpose(opened))
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        raise ImageError(f"{_name(image)}: broken or cut ({str(error)[:120]})") from None
    if max_side is not None and max(rgb.size) > max_side:
        scale = max_side / max(rgb.size)
        width, height = (max(1, round(side * scale)) for side in rgb.size)
        rgb = rgb.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return rgb


def as_image(value: object) -> Image:
    """A path, a string that is one, encoded bytes, or a Pillow image, as records hold images.

    Raises ImageError for anything else.
    """
    if isinstance(value, (Path, bytes)):
        return value
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, PIL.Image.Image):
        kept = PIL.ImageOps.exif_transpose(value)
        if kept.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            kept = _as_rgb(kept)
        stream = io.BytesIO()
        kept.save(stream, "PNG", compress_level=1)
        return stream.getvalue()
    raise ImageError(f"an image must be a path, encoded bytes or a Pillow image, is {type(value).__name__}")


def as_images(value: Images) -> tuple[Image, ...]:
    """The images of a question as a caller gives them: None, one image, or several in order. Raises ImageError."""
    if value is None:
        return ()
    if isinstance(value, (str, Path, bytes, bytearray, memoryview, PIL.Image.Image)):
        return (as_image(value),)
    try:
        items = iter(value)
    except TypeError:
        raise ImageError(f"images must be None, an image or a list of images, is {type(value).__name__}") from None
    return tuple(as_image(item) for item in items)


def _as_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = PIL.Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scaled_grey(image: PIL.Image.Image) -> PIL.Image.Image:
    """16 bits by their full scale; floats by 1 or 255 where they lie below it, anything wider by its own range.

    Pillow's own conversion clips at 255 instead, which makes a 16-bit picture white.
    """
    values = np.asarray(image).astype(np.float64)
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    full = 65_535.0 if image.mode != "F" else 1.0 if low >= 0.0 and high <= 1.0 else 255.0
    low = 0.0 if low >= 0.0 and high <= full else low
    full = full if low >= 0.0 and high <= full else (high - low) or 1.0
    scaled = np.where(known, (values - low) * (255.0 / full), 0.0)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled = np.where(values == transparent, 255.0, scaled)
    return PIL.Image.fromarray(np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)).convert("RGB")
