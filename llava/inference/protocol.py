"""What a client asks in OpenAI's form (chat completions), checked, and turned into a request of our generator.

Images come as `data:` URIs. A file is read only below the folder that whoever started the server allowed, and no URL is
ever fetched: a client's word must not make the server read its own disk or its network.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llava.errors import UserError
from llava.inference.model import refuse_placeholder, render
from llava.model.generation import GenerationRequest, Sampling

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_IMAGES = 16


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        code: short, for programs; as OpenAI names it where it does.
        parameter: the field at fault, or None.
    """

    def __init__(self, status: int, code: str, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.parameter = status, code, parameter

    def body(self) -> dict[str, Any]:
        """The answer, in OpenAI's form."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.parameter, "code": self.code}}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ImageUrl(_Part):
    """Where an image is."""

    url: str


class ImagePart(_Part):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(_Part):
    """Text in a message."""

    type: Literal["text"]
    text: str


Part = Annotated[ImagePart | TextPart, Field(discriminator="type")]


class Message(_Part):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class StreamOptions(_Part):
    """What a stream ends with."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The fields of a chat completion that mean something here; what would change the answer and is not offered is
    refused, the rest is ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    tools: None = None
    response_format: None = None
    logprobs: Literal[False] | None = None
    logit_bias: None = None


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_new_tokens: longest answer, and what is taken where the client names none.
        context: tokens of prompt and answer that the model was made for.
        images: loads an image that is no `data:` URI, or None: such images are refused.
    """

    max_new_tokens: int
    context: int
    images: Callable[[str], Image] | None


@dataclass(frozen=True)
class Asked:
    """A request that can be answered.

    Attributes:
        request: for the generator.
        prompt_tokens: of the prompt, visual tokens included.
        stream: the client wants the text as it is written.
        usage_at_end: of a stream.
    """

    request: GenerationRequest
    prompt_tokens: int
    stream: bool
    usage_at_end: bool


def read(body: Any, served: str, processor: Any, limits: Limits) -> Asked:
    """Check a request's body.

    Args:
        body: parsed JSON.
        served: name of the only model there is; any other is refused.

    Raises:
        Refused: with a message for the client.
    """
    try:
        chat = ChatRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise Refused(400, "invalid_value", f"{where or 'body'}: {first['msg']}", where or None) from None
    if chat.model not in ("", served):
        raise Refused(404, "model_not_found", f"model: found {chat.model!r}; this server has {served!r}", "model")
    images: list[Image] = []
    messages = [_message(one, number, processor, limits, images) for number, one in enumerate(chat.messages)]
    try:
        prompt = render(processor, messages)
    except UserError as error:
        raise Refused(400, "invalid_value", str(error), "messages") from None
    longest = min(chat.max_completion_tokens or chat.max_tokens or limits.max_new_tokens, limits.max_new_tokens)
    tokens = prompt_tokens(processor, prompt, images)
    if tokens + longest > limits.context:
        raise Refused(
            400, "context_length_exceeded",
            f"messages: {tokens} tokens of prompt and up to {longest} of answer; the model has room for "
            f"{limits.context}", "messages",
        )  # fmt: skip
    sampling = Sampling(chat.temperature, chat.top_p, chat.seed) if chat.temperature else None
    stop = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    request = GenerationRequest(prompt, images, longest, [text for text in stop if text], sampling)
    return Asked(request, tokens, chat.stream, bool(chat.stream_options and chat.stream_options.include_usage))


def prompt_tokens(processor: Any, prompt: str, images: list[Image]) -> int:
    """Tokens of a prompt, with those that its images become."""
    sizes = [[image.height, image.width] for image in images]
    visual = sum(processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]) if sizes else 0
    return len(processor.tokenizer(prompt).input_ids) - len(images) + int(visual)


def _message(message: Message, number: int, processor: Any, limits: Limits, images: list[Image]) -> dict[str, Any]:
    where = f"messages.{number}.content"
    parts = [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content
    content: list[dict[str, str]] = []
    for part in parts:
        if isinstance(part, TextPart):
            try:
                refuse_placeholder(processor, part.text)
            except UserError as error:
                raise Refused(400, "invalid_value", f"{where}: {error}", where) from None
            content.append({"type": "text", "text": part.text})
            continue
        if message.role != "user":
            raise Refused(400, "invalid_value", f"{where}: an image in a message of {message.role!r}", where)
        if len(images) == MAX_IMAGES:
            raise Refused(400, "invalid_value", f"{where}: more than {MAX_IMAGES} images", where)
        images.append(_image(part.image_url.url, where, limits))
        content.append({"type": "image"})
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": content}


def _image(url: str, where: str, limits: Limits) -> Image:
    from llava.data.decoding import decode

    try:
        if url.startswith("data:"):
            head, comma, data = url.partition(",")
            if not comma or not head.endswith(";base64"):
                raise Refused(400, "invalid_image_url", f"{where}: expected data:image/...;base64,...", where)
            return decode(base64.b64decode(data, validate=True), "image")
        if limits.images is None or url.startswith(("http:", "https:")):
            raise Refused(
                400, "invalid_image_url",
                f"{where}: found {url[:60]!r}; expected a data: URI: this server fetches nothing", where,
            )  # fmt: skip
        return limits.images(url)
    except (UserError, binascii.Error) as error:
        raise Refused(400, "invalid_image", f"{where}: {error}", where) from None
