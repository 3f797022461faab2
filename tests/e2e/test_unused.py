"""`scripts/unused`: which dependencies it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from processes import ROOT

MANIFEST = """
[package]
name = "planted"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "1"
"""


@pytest.mark.parametrize(
    ("source", "is_used"),
    [
        ("use bytes::Bytes;", True),
        ("pub(crate) use bytes as other;", True),
        ("use bytes;", True),
        ("fn of(b: bytes::Bytes) {}", True),
        ("fn of(bytes: u32) -> u64 { bytes as u64 }", False),
        ("fn of(bytes: u32) -> u32 { return bytes; }", False),
        ("use std::bytes::Bytes;", False),
        ("use megabytes::Bytes;", False),
        ("// bytes::Bytes", False),
    ],
)
def test_a_dependency_is_used_where_a_path_begins_with_it(
    tmp_path: Path, source: str, is_used: bool
):
    (tmp_path / "Cargo.toml").write_text(MANIFEST)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "lib.rs").write_text(f"{source}\n")
    done = subprocess.run(
        ["python3", ROOT / "scripts" / "unused"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [] if is_used else ["planted: nothing uses bytes"]
    assert done.stdout.splitlines() == [*told, f"{len(told)} unused dependencies"]
    assert done.returncode == len(told)
