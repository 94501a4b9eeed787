"""Records: published rows verbatim, every fault named, nothing lost on the way through the compact list."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.records import (
    Record,
    RecordList,
    Turn,
    check_threshold,
    read_records,
    record_from_row,
    row_from_record,
    write_records,
)
from llava.errors import DataError, RowError, StorageError

# As the notes of the project quote them: the first two are Python's way of showing a row, the third is JSON.
META_ROW = """{
    'url': 'https://ak1.ostkcdn.com/images/products/11932255/P18821274.jpg',
    'blip_caption': 'a grey watch with an army style strap',
    'image': '00223/002239345.jpg', 'id': '002239345'
}"""
PRETRAIN_ROW = """{'conversations': [{'from': 'human', 'value': 'Write a terse but informative summary of the picture.\\n<image>'},
{'from': 'gpt', 'value': 'a grey watch with an army style strap'}], 'image': '00223/002239345.jpg', 'id': '002239345'}"""  # noqa: E501
MIX_ROW = """{
    "id": "000000033471",
    "image": "coco/train2017/000000033471.jpg",
    "conversations": [
      {
        "from": "human",
        "value": "<image>\\nWhat are the colors of the bus in the image?"
      },
      {
        "from": "gpt",
        "value": "The bus in the image is white and red."
      }
    ]
  }"""
BOX_ROW: dict[str, Any] = {
    "id": "VG_100K_2/2",
    "image": "vg/VG_100K_2/2.jpg",
    "conversations": [
        {
            "from": "human",
            "value": "<image>\nPlease provide the bounding box coordinate of the region this sentence describes: "
            "a bus.",
        },
        {"from": "gpt", "value": "[0.0, 0.12, 0.51, 0.98]"},
        {"from": "human", "value": "Please provide a short description for this region: [0.1, 0.2, 0.3, 0.4]."},
        {"from": "gpt", "value": "white wheel"},
    ],
}
SHAREGPT_ROW: dict[str, Any] = {
    "id": "wNBG8Gp_0",
    "model": "",
    "conversations": [{"from": "human", "value": "java add to the arraylist"}, {"from": "gpt", "value": "To add ..."}],
}


def write(tmp_path: Path, rows: Any) -> str:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return str(path)


def test_the_published_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [ast.literal_eval(META_ROW), ast.literal_eval(PRETRAIN_ROW), json.loads(MIX_ROW), BOX_ROW, SHAREGPT_ROW]
    file = read_records(write(tmp_path, rows))
    assert not file.problems
    assert not file.repairs
    meta, pretrain, mix, box, text_only = file.records
    assert meta.turns == (Turn("human", "<image>"), Turn("gpt", "a grey watch with an army style strap"))
    assert pretrain.id == meta.id == "002239345"
    assert pretrain.images == meta.images == ("00223/002239345.jpg",)
    assert pretrain.turns[0].text == "Write a terse but informative summary of the picture.\n<image>"
    assert mix.turns[1].text == "The bus in the image is white and red."
    assert [turn.text for turn in box.turns] == [turn["value"] for turn in BOX_ROW["conversations"]]
    assert text_only.images == ()
    assert [record.index for record in file.records] == [0, 1, 2, 3, 4]


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (BOX_ROW, SHAREGPT_ROW)) + "\n\n")
    assert [record.id for record in read_records(str(path)).records] == ["VG_100K_2/2", "wNBG8Gp_0"]


def human(text: Any) -> dict[str, Any]:
    return {"from": "human", "value": text}


def gpt(text: Any) -> dict[str, Any]:
    return {"from": "gpt", "value": text}


@pytest.mark.parametrize(
    ("row", "problem", "where"),
    [
        (["not", "an", "object"], "row-type", "(row)"),
        ({"id": "1"}, "field-missing", "conversations"),
        ({"id": "1", "conversations": "text"}, "field-type", "conversations"),
        ({"id": "1", "conversations": []}, "no-answer", "conversations"),
        ({"id": "1", "conversations": [human("only asked")]}, "no-answer", "conversations"),
        ({"id": "1", "conversations": ["x"]}, "field-type", "conversations[0]"),
        ({"id": "1", "conversations": [{"from": "bot", "value": "x"}]}, "role", "conversations[0].from"),
        ({"id": "1", "conversations": [human(3), gpt("x")]}, "field-type", "conversations[0].value"),
        ({"id": "1", "conversations": [human("q"), gpt(" ")]}, "empty-answer", "conversations[1].value"),
        ({"id": "1", "conversations": [human(""), gpt("a")]}, "empty-question", "conversations[0].value"),
        ({"id": "1", "conversations": [human("q"), human("q"), gpt("a")]}, "role-order", "conversations[1].from"),
        (
            {"id": "1", "image": "a", "conversations": [human("<image> <image>"), gpt("a")]},
            "image-count",
            "conversations",
        ),
        ({"id": "1", "image": "a", "conversations": [human("q"), gpt("a")]}, "image-count", "conversations"),
        ({"id": "1", "conversations": [human("<image>"), gpt("a")]}, "image-count", "conversations"),
        (
            {"id": "1", "image": "a", "conversations": [human("q"), gpt("<image>")]},
            "image-count",
            "conversations[1].value",
        ),
        ({"id": "1", "image": ["a", 3], "conversations": [human("<image>"), gpt("a")]}, "field-type", "image"),
        ({"id": "1", "image": "", "conversations": [human("<image>"), gpt("a")]}, "field-type", "image"),
        ({"id": [1], "conversations": [human("q"), gpt("a")]}, "field-type", "id"),
        ({"id": "1", "image": "a", "blip_caption": None}, "field-type", "blip_caption"),
    ],
)
def test_each_fault_is_a_counted_row_error_that_says_where(tmp_path: Path, row: Any, problem: str, where: str) -> None:
    uri = write(tmp_path, [BOX_ROW, row, SHAREGPT_ROW])
    file = read_records(uri)
    assert [record.id for record in file.records] == ["VG_100K_2/2", "wNBG8Gp_0"]
    (found,) = file.problems
    assert (found.file, found.row, found.field, found.problem) == (uri, 1, where, problem)
    assert "expected" in str(found)
    assert file.total == 3


def test_two_faults_of_the_published_files_are_put_right_and_counted(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "conversations": [gpt("hello"), human("q"), gpt("a")]},
        {"id": "b", "image": "x.jpg", "conversations": [human("<image>q"), gpt("a"), human("and?")]},
        {"id": "c", "image": "x.jpg", "conversations": [human("q"), gpt("a"), human("and <image>?")]},
    ]
    file = read_records(write(tmp_path, rows))
    assert [[turn.text for turn in record.turns] for record in file.records] == [["q", "a"], ["<image>q", "a"]]
    assert file.repairs == {"leading-answer-dropped": 1, "trailing-question-dropped": 2}
    assert [problem.problem for problem in file.problems] == ["image-count"]  # its <image> went with the question


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "empty file"), ("  \n ", "empty file"), ("[]", "no rows"), ("{'a': 1}", "not JSON"), ("[1, 2", "not JSON")],
)
def test_a_file_that_is_no_data_file_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_records(str(path))
    assert str(path) in str(caught.value)


def test_a_line_that_is_no_json_is_its_rows_fault(tmp_path: Path) -> None:
    good = json.dumps(row_from_record(record_from_row(SHAREGPT_ROW)))
    lines = ["{broken", good, "", good[:-2], good.replace("wNBG8Gp_0", "third"), '{"id": "\udc80"']
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    file = read_records(str(path))
    assert [(record.id, record.index) for record in file.records] == [("wNBG8Gp_0", 1), ("third", 3)]
    assert [(problem.row, problem.problem) for problem in file.problems] == [
        (0, "not-json"),
        (2, "not-json"),
        (4, "not-json"),
    ]
    assert file.total == 5
    assert f"{path}: row 0: (line): found '{{broken'; expected one JSON object a line" in str(file.problems[0])
    check_threshold(file.problems, file.total, 0.6)
    with pytest.raises(DataError, match=r"3 of 5 rows (?s:.*) not-json: 3"):
        check_threshold(file.problems, file.total, 0.5)


def test_a_file_of_which_no_line_is_json_is_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("id,image,text\n" * 3)
    with pytest.raises(DataError, match=r"not JSON: .*found 'id,image,text'; expected a JSON list"):
        read_records(str(path))
    # Not all of a large one is read to find out: the line behind the thousandth would be fine.
    path.write_text("no\n" * 1000 + json.dumps(SHAREGPT_ROW))
    with pytest.raises(DataError, match="not JSON"):
        read_records(str(path))


def test_a_path_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        read_records(str(tmp_path / "absent.json"))


def test_records_from_an_s3_store(rclone_s3: Any, tmp_path: Path) -> None:
    uri = f"{rclone_s3.uri}/data/rows.json"
    write_records(uri, [record_from_row(BOX_ROW), record_from_row(SHAREGPT_ROW)])
    file = read_records(uri)
    assert [record.id for record in file.records] == ["VG_100K_2/2", "wNBG8Gp_0"]
    assert len(file.sha256) == 64


text = st.text(min_size=1).filter(lambda t: t.strip() and "<image>" not in t)
turn_pairs = st.lists(st.tuples(text, text), min_size=1, max_size=4)


@given(pairs=turn_pairs, images=st.lists(st.text(min_size=1).filter(str.strip), max_size=3), identity=st.text())
def test_a_record_survives_the_compact_list_and_the_file(
    pairs: list[tuple[str, str]], images: list[str], identity: str
) -> None:
    turns = [Turn(role, text) for pair in pairs for role, text in zip(("human", "gpt"), pair, strict=True)]  # type: ignore[arg-type]
    turns[0] = Turn("human", "<image>" * len(images) + turns[0].text)
    record = Record(identity, tuple(images), tuple(turns), 7)
    other = Record("x", (), (Turn("human", "q"), Turn("gpt", "a")), 8)
    listed = RecordList([record, other, record])
    assert len(listed) == 3
    assert list(listed) == [record, other, record]
    assert listed[-1] == record
    assert listed[1:] == [other, record]
    assert record_from_row(row_from_record(record), index=7) == record
    with pytest.raises(IndexError):
        listed[3]


def test_the_file_written_has_the_originals_form(tmp_path: Path) -> None:
    uri = str(tmp_path / "out.json")
    two = {"id": "2", "image": ["a.jpg", "b.jpg"], "conversations": [human("<image><image>q"), gpt("a")]}
    write_records(uri, [record_from_row(row) for row in (BOX_ROW, SHAREGPT_ROW, two)])
    rows = json.loads(Path(uri).read_text())
    expected_text = {key: value for key, value in SHAREGPT_ROW.items() if key != "model"}
    assert rows == [BOX_ROW, expected_text, two]


def problem(row: int, name: str = "image-missing") -> RowError:
    return RowError("rows.json", row, "image", "x.jpg", "an existing file", problem=name)


def test_the_threshold_is_a_share_of_rows_not_of_problems() -> None:
    same_row = [problem(3), problem(3, "image-corrupt")]
    check_threshold(same_row, 100, 0.01)
    check_threshold([], 1, 0.0)
    with pytest.raises(DataError, match=r"1 of 100 rows \(1.00%\) cannot be used; at most 0.90%"):
        check_threshold(same_row, 100, 0.009)


def test_the_message_counts_each_problem_and_shows_the_first() -> None:
    problems = [problem(1), problem(4), problem(2, "empty-answer")]
    with pytest.raises(DataError) as caught:
        check_threshold(problems, 10, 0.1)
    assert "image-missing: 2, first: rows.json: row 1" in str(caught.value)
    assert "empty-answer: 1, first: rows.json: row 2" in str(caught.value)


def test_no_usable_row_is_an_error_whatever_the_threshold() -> None:
    with pytest.raises(DataError):
        check_threshold([problem(0)], 1, 1.0)
    with pytest.raises(DataError, match="no rows at all"):
        check_threshold([], 0, 1.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "image", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
almost_turn = st.fixed_dictionaries(
    {},
    optional={
        "from": st.sampled_from(["human", "gpt", "bot"]) | json_values,
        "value": json_values | st.just("<image>"),
    },
)
almost_row = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "image": json_values | st.lists(st.text(), max_size=2),
        "conversations": st.lists(almost_turn | json_values, max_size=4) | json_values,
        "blip_caption": json_values,
    },
)


@given(row=almost_row | json_values)
def test_any_row_is_a_record_or_a_named_problem(row: Any) -> None:
    try:
        record = record_from_row(row)
    except RowError as problem:
        found = problem
    else:
        assert [turn.role for turn in record.turns] == ["human", "gpt"] * (len(record.turns) // 2)
        assert sum(turn.text.count("<image>") for turn in record.turns) == len(record.images)
        assert record_from_row(row_from_record(record)) == record
        return
    assert found.problem
    assert found.expected
