"""`llava chat`: ask a trained model about an image, once or in a conversation; answers appear as they are written."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

app = typer.Typer(add_completion=False)

HELP = "/image FILE shows another image and starts anew, /reset forgets the conversation, /quit ends"


@app.command("chat")
def chat(
    question: Annotated[str, typer.Argument(help="What to ask; without it, a conversation starts")] = "",
    model: Annotated[str, typer.Option(help="Trained model (required): hub directory, s3:// URI or hub id")] = "",
    image: Annotated[str, typer.Option(help="Image: file, or s3:// URI; without it the model sees none")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens")] = 256,
) -> None:
    """Ask a trained model about an image"""
    from llava.errors import SettingsError

    if not model:
        raise SettingsError("llava chat: no model given; expected --model DIR")
    conversation = Conversation.open(model, max_new_tokens)
    if image:
        conversation.show(image)
    if question:
        conversation.ask(question)
        return
    interact(conversation)


@dataclass
class Conversation:
    """A model, the image it is shown, and what was said so far."""

    model: Any
    processor: Any
    max_new_tokens: int
    image: Image.Image | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, uri: str, max_new_tokens: int) -> Conversation:
        """Load a model, on the GPU in half precision where there is one.

        Raises:
            UserError: it cannot be read, or has no chat template.
        """
        from llava.evaluation.contenders import load_answering

        return cls(*load_answering(uri), max_new_tokens)

    def show(self, reference: str) -> None:
        """Take another image; what was said about the one before is forgotten.

        Raises:
            UserError: there is no such image, or it cannot be decoded.
        """
        from llava.evaluation.question_images import Images

        self.image = Images("", anywhere=True).load(reference)
        self.reset()

    def reset(self) -> None:
        """Forget what was said; the image stays."""
        self.messages = []

    def ask(self, question: str) -> str:
        """Ask, print the answer as it is written, and remember both.

        Raises:
            UserError: the question holds the image placeholder, for which there is no image.
        """
        from llava.model.generation import GenerationRequest, generate

        if self.processor.image_token in question:
            raise UserError(
                f"question: found {self.processor.image_token} in it; expected plain text; give images by file"
            )
        content: list[dict[str, str]] = [{"type": "text", "text": question}]
        if self.image is not None and not self.messages:
            content.insert(0, {"type": "image"})
        self.messages.append({"role": "user", "content": content})
        prompt = str(self.processor.apply_chat_template(self.messages, add_generation_prompt=True, tokenize=False))
        images = [self.image] if self.image is not None else []
        started = False

        def show(_: int, piece: str) -> None:
            nonlocal started
            text = piece if started else piece.lstrip()
            started = started or bool(text)
            sys.stdout.write(text)
            sys.stdout.flush()

        request = GenerationRequest(prompt, images)
        [answer] = generate(self.model, self.processor, [request], max_new_tokens=self.max_new_tokens, stream=show)
        sys.stdout.write("\n")
        self.messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return answer


def interact(conversation: Conversation) -> None:
    """Read questions and commands from standard input until /quit or its end."""
    prompting = sys.stdin.isatty()
    if prompting:
        typer.echo(HELP, err=True)
    while True:
        if prompting:
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        line = line.strip()
        command, _, rest = line.partition(" ")
        if not line:
            continue
        if command == "/quit":
            return
        if command == "/reset":
            conversation.reset()
            continue
        try:
            if command == "/image":
                conversation.show(rest.strip())
            elif command.startswith("/"):
                typer.echo(HELP, err=True)
            else:
                conversation.ask(line)
        except UserError as error:  # a mistyped path must not end the conversation
            typer.echo(str(error), err=True)
