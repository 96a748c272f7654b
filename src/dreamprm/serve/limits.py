"""What clients may ask a server for."""

from __future__ import annotations

from dataclasses import dataclass

from dreamprm.setting import Settings, setting

__all__ = ["Limits"]


@dataclass
class Limits(Settings):
    """What one client, and all of them together, may ask for."""

    batch_size: int = setting(16, "chains read at once, across requests", least=1)
    waiting: int = setting(256, "chains that may wait; more are answered 429", least=1)
    chains: int = setting(64, "chains of one request", least=1)
    steps: int = setting(256, "steps of one chain", least=1)
    tokens: int = setting(8192, "tokens of one chain, image tokens included", least=1)
    body: int = setting(32 * 2**20, "bytes of one request", least=1024)
    image_pixels: int = setting(16_000_000, "pixels of one image", least=1)
    images: int = setting(16, "images of one request", least=0)
    body_seconds: float = setting(60.0, "seconds in which a request must have come", above=0)
