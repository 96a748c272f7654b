"""What clients send, checked field by field: vLLM's `/pooling`, and `/score`. Nothing is passed over in silence.

Images come inside the request (base64, or a data URL). An address or a path is refused: the server opens no file and no
connection for a client.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from dreamprm.data.readers.images import ImageError, image_size
from dreamprm.data.record import Record, RecordError
from dreamprm.serve.jobs import Refused

__all__ = ["ImagePart", "Message", "PoolingRequest", "ScoreRequest", "TextPart", "image_bytes", "records_of"]

Ids = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]
Step = Annotated[StrictStr, Field(min_length=1)]
Steps = Annotated[list[Step], Field(min_length=1)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Request):
    type: Literal["text"]
    text: StrictStr


class _ImageURL(_Request):
    url: StrictStr
    detail: StrictStr | None = None


class ImagePart(_Request):
    type: Literal["image_url"]
    image_url: _ImageURL


class Message(_Request):
    role: Literal["system", "user", "assistant"]
    content: StrictStr | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class PoolingRequest(_Request):
    """vLLM's request of its task `token_classify`: `input` (text, texts, token ids, lists of them) or `messages`."""

    model: StrictStr | None = None
    input: (
        StrictStr
        | Annotated[list[StrictStr], Field(min_length=1)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1)]
        | None
    ) = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    task: Literal["token_classify"] | None = None
    use_activation: StrictBool | None = None
    encoding_format: Literal["float"] = "float"
    add_special_tokens: StrictBool | None = None
    add_generation_prompt: StrictBool = False
    continue_final_message: Literal[False] = False
    mm_processor_kwargs: dict[str, Any] | None = None
    user: StrictStr | None = None
    request_id: StrictStr | None = None


class ScoreRequest(_Request):
    """A question and one chain (`steps`) or several (`chains`) -> the probability that each step is right."""

    model: StrictStr | None = None
    question: StrictStr
    images: list[StrictStr] = []
    steps: Steps | None = None
    chains: Annotated[list[Steps], Field(min_length=1)] | None = None


def image_bytes(text: str, max_pixels: int, where: str) -> bytes:
    """An image from base64 or a data URL, its header held against the limit. Raises Refused."""
    body = text
    if text.startswith("data:"):
        head, _, body = text.partition(",")
        if not head.endswith(";base64"):
            raise Refused(f"{where}: a data URL must be data:image/…;base64,…")
    elif "://" in text[:16]:
        raise Refused(f"{where}: addresses are not opened; send the image itself, as base64 or a data URL")
    try:
        data = base64.b64decode(body, validate=True)
        image_size(data, max_pixels=max_pixels)
    except ImageError as error:
        raise Refused(f"{where}: {error}") from None
    except (binascii.Error, ValueError):
        raise Refused(f"{where}: is neither base64 nor a data URL (paths are not opened)") from None
    return data


def records_of(request: ScoreRequest, max_pixels: int) -> list[Record]:
    """The chains as records. Raises Refused."""
    if (request.steps is None) == (request.chains is None):
        raise Refused("give steps (one chain) or chains (several), one of the two")
    images = tuple(image_bytes(text, max_pixels, f"images[{place}]") for place, text in enumerate(request.images))
    chains = request.chains if request.chains is not None else [request.steps or []]
    try:
        about: dict[str, Any] = {"source": "", "domain": "", "group": "", "question": request.question}
        about["images"] = images
        return [Record(key=f"chain {row}", steps=tuple(steps), **about) for row, steps in enumerate(chains)]
    except RecordError as error:
        raise Refused(f"{error.field}: {error.reason}") from None
