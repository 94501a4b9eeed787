"""`llava chat`: ask a trained model about images, once or in a conversation; answers appear as they are written."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from llava.model.sampling import Sampling

app = typer.Typer(add_completion=False)

HELP = """\
/image FILE ...  show these images and start anew
/history         what was said so far
/edit TEXT       ask the last question in other words
/retry           ask the last question again (another answer, with a temperature)
/reset           forget what was said; the images stay
/quit            end"""


@app.command("chat")
def chat(
    question: Annotated[str, typer.Argument(help="What to ask; without it, a conversation starts")] = "",
    model: Annotated[str, typer.Option(help="Trained model (required): hub directory, s3:// URI or hub id")] = "",
    image: Annotated[
        list[str] | None,
        typer.Option(help="Image: file, or s3:// URI; may be given several times"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens")] = 256,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="0: the likeliest answer; above, drawn from the likely ones")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1, help="With a temperature: among the likeliest of this probability")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, help="With a temperature: the same seed, the same answer")] = None,
) -> None:
    """Ask a trained model about images"""
    from llava.errors import SettingsError
    from llava.model.sampling import Sampling

    if not model:
        raise SettingsError("llava chat: no model given; expected --model DIR")
    sampling = Sampling(temperature, top_p, seed) if temperature else None
    conversation = Conversation.open(model, max_new_tokens, sampling)
    if image:
        conversation.show(image)
    if question:
        conversation.ask(question)
        return
    interact(conversation)


@dataclass
class Conversation:
    """A model, the images it is shown, and what was said so far."""

    model: Any
    processor: Any
    max_new_tokens: int
    sampling: Sampling | None = None
    name: str = ""
    images: list[Image.Image] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, uri: str, max_new_tokens: int, sampling: Sampling | None = None) -> Conversation:
        """Load a model, on the GPU in half precision where there is one.

        Raises:
            UserError: it cannot be read, or has no chat template.
        """
        from llava.model.answering import load_answering

        return cls(*load_answering(uri), max_new_tokens, sampling, uri)

    def show(self, references: list[str]) -> None:
        """Take other images; what was said about the ones before is forgotten.

        Raises:
            UserError: there is no such image, or it cannot be decoded; nothing has changed then.
        """
        from llava.data.images import ImageSource

        for reference in references:
            if "://" not in reference and Path(reference).is_dir():
                raise UserError(f"image: {reference} is a folder; expected an image file")
        source = ImageSource("", anywhere=True)
        self.images = [source.load(reference) for reference in references]
        self.reset()

    def reset(self) -> None:
        """Forget what was said; the images stay."""
        self.messages = []

    def take_back(self) -> str:
        """Forget the last question and its answer.

        Returns:
            The question.

        Raises:
            UserError: nothing was asked yet.
        """
        if not self.messages:
            raise UserError("nothing was asked yet")
        question, _ = self.messages[-2:]
        self.messages = self.messages[:-2]
        return str(question["content"][-1]["text"])

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
        if not self.messages:
            content = [*({"type": "image"} for _ in self.images), *content]
        messages = [*self.messages, {"role": "user", "content": content}]
        prompt = str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        started = False

        def show(_: int, piece: str) -> None:
            nonlocal started
            text = piece if started else piece.lstrip()
            started = started or bool(text)
            sys.stdout.write(text)
            sys.stdout.flush()

        request = GenerationRequest(prompt, self.images, sampling=self.sampling)
        [answer] = generate(self.model, self.processor, [request], max_new_tokens=self.max_new_tokens, stream=show)
        sys.stdout.write("\n")
        # Only now: a question whose answer was interrupted was not asked.
        self.messages = [*messages, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        return answer


def interact(conversation: Conversation) -> None:
    """Read questions and commands from standard input until /quit or its end.

    At a terminal, Ctrl-C ends an answer and not the conversation, and the arrow keys edit and recall lines.
    """
    prompting = sys.stdin.isatty()
    if prompting:
        import readline  # noqa: F401  (input() edits and recalls lines with it)

        device = conversation.model.get_input_embeddings().weight.device
        shown = f"{len(conversation.images)} images" if len(conversation.images) != 1 else "1 image"
        typer.echo(f"{conversation.name} on {device}, {shown}; /help names the commands, /quit ends", err=True)
    while True:
        line = _line(prompting)
        if line is None:
            return
        if not line:
            continue
        try:
            if not _obey(conversation, line):
                return
        except UserError as error:  # a mistyped path must not end the conversation
            typer.echo(str(error), err=True)
        except KeyboardInterrupt:
            if not prompting:
                raise
            typer.echo("\n(stopped)", err=True)


def _obey(conversation: Conversation, line: str) -> bool:
    """Do what one line says; False ends the conversation."""
    command, _, rest = line.partition(" ")
    if command == "/quit":
        return False
    if command == "/image":
        conversation.show(_files(rest))
    elif command == "/reset":
        conversation.reset()
    elif command == "/history":
        for message in conversation.messages:
            typer.echo(f"{message['role']}: {message['content'][-1]['text']}")
    elif command == "/retry":
        conversation.ask(conversation.take_back())
    elif command == "/edit" and rest.strip():
        conversation.take_back()
        conversation.ask(rest.strip())
    elif command.startswith("/"):
        typer.echo(HELP, err=True)
    else:
        conversation.ask(line)
    return True


def _files(text: str) -> list[str]:
    """One name with blanks in it, or several names, quoted where they hold blanks."""
    import shlex

    if not text.strip():
        raise UserError("/image: expected a file: /image photo.jpg")
    if Path(text.strip()).exists():
        return [text.strip()]
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"/image: {error}: {text.strip()}") from error


def _line(prompting: bool) -> str | None:
    """The next line without its blanks; None at the end."""
    if not prompting:
        line = sys.stdin.readline()
        return line.strip() if line else None
    try:
        return input("> ").strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        typer.echo("", err=True)
        return ""
