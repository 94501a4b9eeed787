"""Every form of rows that people have becomes the same record.

The rows are written as the form's own documentation shows them, never by a writer of ours.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from llava.data.records import Turn, record_from_row
from llava.errors import RowError

Q, A = "What is on the mat?", "A cat."
WANTED = (Turn("human", f"<image>\n{Q}"), Turn("gpt", A))

FORMS: dict[str, dict[str, Any]] = {
    "llava": {
        "image": "cat.jpg",
        "conversations": [{"from": "human", "value": f"<image>\n{Q}"}, {"from": "gpt", "value": A}],
    },
    # LLaMA-Factory, data/README.md, "Multimodal image dataset".
    "sharegpt": {
        "conversations": [{"from": "human", "value": f"<image>\n{Q}"}, {"from": "gpt", "value": A}],
        "images": ["cat.jpg"],
    },
    "sharegpt-roles": {
        "image": "cat.jpg",
        "conversations": [{"from": "user", "value": f"<image>\n{Q}"}, {"from": "assistant", "value": A}],
    },
    # TRL, "Vision datasets": the images stand beside the messages, and nothing in the text says where.
    "messages": {
        "images": ["cat.jpg"],
        "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
    },
    "prompt-completion": {
        "images": ["cat.jpg"],
        "prompt": [{"role": "user", "content": Q}],
        "completion": [{"role": "assistant", "content": A}],
    },
    "parts-placeholder": {
        "images": ["cat.jpg"],
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": Q}]},
            {"role": "assistant", "content": [{"type": "text", "text": A}]},
        ],
    },
    # OpenAI's chat completions.
    "openai": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "cat.jpg"}},
                    {"type": "text", "text": Q},
                ],
            },
            {"role": "assistant", "content": A},
        ]
    },
    "hf-image-object": {
        "images": [{"path": "cat.jpg"}],
        "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
    },
    # HuggingFaceM4/the_cauldron.
    "cauldron": {"images": ["cat.jpg"], "texts": [{"user": Q, "assistant": A, "source": "x"}]},
    "roles-in-conversations": {
        "image": "cat.jpg",
        "conversations": [{"role": "user", "content": f"<image>\n{Q}"}, {"role": "assistant", "content": A}],
    },
}


@pytest.mark.parametrize("name", FORMS)
def test_one_record_whatever_the_form(name: str) -> None:
    record = record_from_row({"id": "7", **FORMS[name]})
    assert (record.id, record.images, record.turns) == ("7", ("cat.jpg",), WANTED)


def test_images_of_several_turns_stand_where_their_parts_stood() -> None:
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "First:"}, {"type": "image", "image": "a.jpg"}]},
            {"role": "assistant", "content": "Seen."},
            {"role": "user", "content": [{"type": "image", "url": "b.jpg"}, {"type": "text", "text": "And this?"}]},
            {"role": "assistant", "content": "Too."},
        ]
    }
    record = record_from_row(row)
    assert record.images == ("a.jpg", "b.jpg")
    assert [turn.text for turn in record.turns] == ["First:\n<image>", "Seen.", "<image>\nAnd this?", "Too."]


def test_a_system_text_goes_before_the_first_question_and_is_counted() -> None:
    repairs: Counter[str] = Counter()
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello?"},
            {"role": "assistant", "content": "Yes."},
        ]
    }
    record = record_from_row(row, repairs=repairs)
    assert record.turns[0].text == "Be brief.\n\nHello?" and repairs == {"system-in-first-question": 1}
    of_sharegpt = {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}],
    }
    assert record_from_row(of_sharegpt).turns == record.turns


def test_text_only_rows_have_no_images() -> None:
    row = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    assert record_from_row(row).images == ()


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 7}]}, "field-type"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "video": "x.mp4"}]}]}, "part-type"),
        ({"messages": ["hello"]}, "field-type"),
        ({"messages": [{"role": role, "content": "a"} for role in ("user", "user", "assistant")]}, "role-order"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]}, "field-type"),
        ({"texts": [{"question": "a"}], "images": []}, "field-type"),
        ({"images": [{"bytes": None}], "messages": []}, "field-type"),
        ({"images": [7], "messages": [{"role": "user", "content": "a"}]}, "field-type"),
        ({"messages": []}, "no-answer"),
        (
            {
                "images": ["a.jpg"],
                "messages": [
                    {"role": "user", "content": "<image><image>x"},
                    {"role": "assistant", "content": "y"},
                ],
            },
            "image-count",
        ),
    ],
)
def test_what_no_form_allows_is_the_rows_fault(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(RowError) as error:
        record_from_row(changed)
    assert error.value.problem == problem, error.value
