"""Ranks and their rows: who reads other rows is told apart, and what one finds wrong arrives whole at the others."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from llava.data.image_error import ImageError
from llava.errors import RowError, StorageError, UserError

RANK = """
import sys
import torch.distributed as dist
from llava.errors import DataError
from llava.training.training_rows import _read_by_all

class Job:
    data_uri = sys.argv[2]

dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=int(sys.argv[1]), world_size=2)
try:
    print(len(_read_by_all(Job()).records), "rows")
except DataError as error:
    print("refused:", error)
"""


def said_by_ranks(files: list[Path], meeting: Path) -> list[str]:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(path), str(meeting)], stdout=subprocess.PIPE, text=True
        )
        for rank, path in enumerate(files)
    ]
    return [rank.communicate(timeout=120)[0] for rank in ranks]


@pytest.mark.slow
def test_ranks_that_read_different_rows_are_told_apart(tmp_path: Path) -> None:
    row = {"id": "1", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps([row]))
    two.write_text(json.dumps([row, row]))
    assert said_by_ranks([one, one], tmp_path / "first") == ["1 rows\n", "1 rows\n"]
    for said in said_by_ranks([one, two], tmp_path / "second"):
        assert "refused: data: ranks read different rows: rank 0 has" in said
        assert str(one) in said and f"rank 1 {two}" in said


@pytest.mark.parametrize(
    "error",
    [
        RowError("rows.json", 3, "image", "absent.jpg", "an existing file", problem="image-missing"),
        ImageError("a.jpg", "image-corrupt", "12 bytes", "a whole JPEG"),
        StorageError("s3://b/k: no"),
    ],
)
def test_an_error_arrives_whole_at_another_rank(error: UserError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.__dict__ == error.__dict__
