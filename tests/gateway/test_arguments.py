"""What a command line may hold: everything else is refused with what was given and what is allowed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from gateway.arguments import folder, new_file, old_file, real, server, whole


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (real(), "0", 0.0), (real(0, 1, above=True), "1", 1.0), (real(), "2.5e3", 2500.0),
        (whole(1), "1", 1), (whole(0, 48_000), "48000", 48_000),
        (server, "localhost:50051", "localhost:50051"), (server, "unix:///run/refrain.sock", "unix:///run/refrain.sock"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_read(read: object, text: str, value: object) -> None:
    assert callable(read)
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (real(), "-1", "'-1': allowed are numbers from 0"),
        (real(above=True), "0", "'0': allowed are numbers above 0"),
        (real(0, 1), "1.5", "'1.5': allowed are numbers from 0 to 1"),
        (real(), "nan", "'nan': allowed are"), (real(), "inf", "'inf': allowed are"), (real(), "x", "'x': allowed are"),
        (whole(1), "0", "'0': allowed are whole numbers from 1"), (whole(), "1.5", "'1.5': allowed are whole numbers"),
        (whole(0, 9), "10", "'10': allowed are whole numbers from 0 to 9"), (whole(), "", "'': allowed are"),
        (server, "", "'': allowed is HOST:PORT"), (server, "http://localhost:50051", "without http://"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_allowed(read: object, text: str, told: str) -> None:
    assert callable(read)
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        read(text)
    assert told in str(refused.value)


def test_files_and_folders_are_looked_for_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    assert folder(str(tmp_path)) == tmp_path
    assert old_file(str(file)) == file
    assert new_file(str(file)) == file
    assert new_file(str(tmp_path / "b.json")) == tmp_path / "b.json"
    for read, path, told in (
        (folder, tmp_path / "none", "there is no such folder"), (folder, file, "not a folder"),
        (old_file, tmp_path / "none", "there is no such file"), (old_file, tmp_path, "a folder"),
        (new_file, tmp_path, "a folder; name a file"), (new_file, tmp_path / "none" / "b.json", "there is no folder"),
        (new_file, file / "b.json", "there is no folder"),
    ):  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError, match=told):
            read(str(path))
