"""Whether the hub can be asked for a model: found out in a second, where its own client tries for half a minute."""

from __future__ import annotations

import functools
import os
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

__all__ = ["hub_answers", "hub_options", "is_path"]

_PATIENCE = 1.0
_PORTS = {"https": 443, "http": 80}


def is_path(name: str | Path) -> bool:
    """Whether a model's name can only be that of a folder: hub names are NAME or OWNER/NAME."""
    text = str(name)
    return isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text


def hub_options(name: str | Path) -> dict[str, Any]:
    """What transformers' from_pretrained is told: to look into the hub's cache only, where the hub does not answer.

    Raises OSError for a folder that is not there, and a model that neither the hub nor its cache can give.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir():
        return {}
    if is_path(name):
        raise OSError("there is no such folder")
    if hub_answers():
        return {}
    if not isinstance(try_to_load_from_cache(str(name), "config.json"), str):
        raise OSError(
            "it is not a local folder, the hub does not answer, and it is not in the hub's cache here; check the name "
            "and the network, or give a folder"
        )
    return {"local_files_only": True}


@functools.cache
def hub_answers() -> bool:
    """Whether a connection to the hub (HF_ENDPOINT), or to the proxy on the way to it, can be opened within a second.

    False at once where HF_HUB_OFFLINE asks for that.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    hub = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxy = urllib.request.getproxies().get(hub.scheme)
    if proxy and not urllib.request.proxy_bypass(hub.hostname or ""):
        hub = urllib.parse.urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    answered = threading.Event()

    def ask() -> None:
        try:
            with socket.create_connection((hub.hostname, hub.port or _PORTS.get(hub.scheme, 443)), timeout=_PATIENCE):
                answered.set()
        except OSError:
            pass
        done.set()

    done = threading.Event()
    # In a thread: looking up a name waits for a dead network as long as the system likes.
    threading.Thread(target=ask, daemon=True).start()
    done.wait(_PATIENCE)
    return answered.is_set()
