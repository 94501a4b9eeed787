"""`llava chat`: one question, a conversation over a pipe, a model in an object store, and what cannot be asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llava import storage
from llava.cli import main
from llava.errors import UserError
from tests.conftest import TinyWorld
from tests.hub_model import HubModel
from tests.s3_server import S3Server


def picture_of(world: TinyWorld, number: int = 0) -> str:
    return str(sorted((world.root / "val2017").glob("*.jpg"))[number])


def expected(model: Path, image: str, turns: list[str], tokens: int) -> list[str]:
    """What the stock class answers to the same conversation, one turn after the other."""
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(model)
    stock = LlavaForConditionalGeneration.from_pretrained(model)
    messages: list[dict[str, object]] = []
    answers = []
    for turn in turns:
        content = [{"type": "text", "text": turn}]
        messages.append({"role": "user", "content": content if messages else [{"type": "image"}, *content]})
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=prompt, images=Image.open(image).convert("RGB"), return_tensors="pt")
        out = stock.generate(**inputs, do_sample=False, max_new_tokens=tokens)
        text = processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
        answers.append(text)
    return answers


def test_one_question_is_answered_as_the_stock_class_answers_it(
    hub_model: HubModel, tiny_world: TinyWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    image = picture_of(tiny_world)
    arguments = ["chat", "--model", str(hub_model.model), "--image", image, "--max-new-tokens", "9", "Where is it?"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert [capsys.readouterr().out.strip()] == expected(hub_model.model, image, ["Where is it?"], 9)


@pytest.mark.slow
def test_a_conversation_remembers_until_another_image_is_shown(hub_model: HubModel, tiny_world: TinyWorld) -> None:
    first, second = picture_of(tiny_world, 0), picture_of(tiny_world, 1)
    command = [str(Path(sys.executable).parent / "llava"), "chat", "--model", str(hub_model.model), "--image", first]
    said = f"Where is it?\n\nAnd what is it?\n/image /nowhere.jpg\n<image>?\n/image {second}\nWhere is it?\n/quit\nno\n"
    done = subprocess.run(
        [*command, "--max-new-tokens", "8"], input=said, capture_output=True, text=True, timeout=300, check=True
    )
    answers = [line.strip() for line in done.stdout.splitlines()]
    wanted = expected(hub_model.model, first, ["Where is it?", "And what is it?"], 8)
    wanted += expected(hub_model.model, second, ["Where is it?"], 8)
    assert answers == wanted
    assert "/nowhere.jpg" in done.stderr and "found <image> in it" in done.stderr


@pytest.mark.slow
def test_the_model_may_lie_in_an_object_store_and_text_alone_is_fine(
    hub_model: HubModel, rclone_s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.upload(hub_model.model, f"{rclone_s3.uri}/model")
    with pytest.raises(SystemExit) as ended:
        main(["chat", "--model", f"{rclone_s3.uri}/model", "--max-new-tokens", "5", "How many shapes?"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hello"], "expected --model DIR"),
        (["--model", "/no/such/place", "hello"], "expected a directory with a config.json"),
        (["--model", "MODEL", "--image", "/no/picture.jpg", "hello"], "/no/picture.jpg"),
        (["--model", "MODEL", "what is <image>?"], "question: found <image> in it"),
        (["--model", "MODEL", "--image", "/", "hello"], "image: / is a folder"),
        (["--model", "MODEL", "--image", __file__, "hello"], "test_chat.py"),
        (["--model", "MODEL", "--temperature", "3", "hello"], "--temperature"),
    ],
)
def test_what_cannot_be_asked_is_said_without_a_traceback(
    hub_model: HubModel, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["chat", *[str(hub_model.model) if argument == "MODEL" else argument for argument in arguments]])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_an_answer_appears_piece_by_piece(
    hub_model: HubModel, tiny_world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava.cli.chat import Conversation

    written: list[str] = []
    monkeypatch.setattr(sys.stdout, "write", lambda text: written.append(text) or len(text))
    conversation = Conversation.open(str(hub_model.model), 12)
    conversation.show([picture_of(tiny_world)])
    answer = conversation.ask("What is it?")
    assert "".join(written).strip() == answer and len(written) > 3
    with pytest.raises(UserError):
        conversation.ask("<image>")
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]


@pytest.mark.slow
def test_what_was_said_can_be_seen_asked_again_and_edited(hub_model: HubModel, tiny_world: TinyWorld) -> None:
    image = picture_of(tiny_world)
    command = [str(Path(sys.executable).parent / "llava"), "chat", "--model", str(hub_model.model), "--image", image]
    said = "/retry\nWhere is it?\n/retry\n/edit What is it?\n/history\n/help\n/image\n"
    done = subprocess.run(
        [*command, "--max-new-tokens", "8"], input=said, capture_output=True, text=True, timeout=300, check=True
    )
    [where] = expected(hub_model.model, image, ["Where is it?"], 8)
    [what] = expected(hub_model.model, image, ["What is it?"], 8)
    answers = [line.strip() for line in done.stdout.splitlines()]
    assert answers == [where, where, what, "user: What is it?", f"assistant: {what}".strip()]
    assert "nothing was asked yet" in done.stderr and "/edit TEXT" in done.stderr and "expected a file" in done.stderr


def test_several_images_and_a_seed(
    hub_model: HubModel, tiny_world: TinyWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [argument for number in (0, 1) for argument in ("--image", picture_of(tiny_world, number))]
    answers = []
    for seed in ("1", "1", "2", "3"):
        options = ["--temperature", "1.5", "--seed", seed, "--max-new-tokens", "12"]
        with pytest.raises(SystemExit) as ended:
            main(["chat", "--model", str(hub_model.model), *images, *options, "Compare them."])
        assert ended.value.code == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] and len({*answers}) == 3
