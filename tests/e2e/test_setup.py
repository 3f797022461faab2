"""`scripts/setup`: what it says, and does, on a machine that lacks something.

The machine is a folder of programs that do nothing but say what they are asked for; no other can be found.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from processes import ROOT

# What the script itself is written with.
TOOLS = ("bash", "dirname", "sed", "cut", "sort", "head", "env")
OLDEST = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"][
    "rust-version"
]
PROGRAMS = {
    "apt-get": 'echo "apt-get $*"',
    "cargo": "",
    "rustc": f"echo 'rustc {OLDEST}.0 (0123456789 2026-01-01)'",
    "id": "echo 1000",
    "java": "echo 'openjdk version \"17.0.1\" 2021-10-19' >&2",
    "python3": "",
} | dict.fromkeys(
    ("cc", "c++", "make", "pkg-config", "openssl", "mvn", "kcat", "prometheus")
    + ("prometheus-alertmanager", "node", "npm", "go", "psql", "curl"),
    "",
)


@pytest.fixture
def setup(tmp_path: Path):
    """Runs the script on a machine without some programs, and with some that are other than usual."""

    def run(
        goal: str, *, without: tuple[str, ...] = (), **other: str
    ) -> subprocess.CompletedProcess[str]:
        for tool in TOOLS:
            (tmp_path / tool).symlink_to(str(shutil.which(tool)))
        for name, does in (PROGRAMS | other).items():
            if name not in without:
                (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
                (tmp_path / name).chmod(0o755)
        return subprocess.run(
            [ROOT / "scripts" / "setup", goal],
            env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_where_nothing_is_missing_it_says_nothing(setup):
    done = setup("build")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("goal", "without", "packages"),
    [
        ("build", ("c++",), "g++"),
        ("build", ("cc", "make", "pkg-config"), "gcc make pkg-config libssl-dev zlib1g-dev"),
        ("kafka", ("java", "mvn"), "openjdk-17-jre-headless maven"),
        ("test", ("curl", "psql"), "postgresql-client curl"),
        ("test", ("python3",), "python3 python3-venv"),
    ],
)  # fmt: skip
def test_who_may_not_install_packages_is_told_the_line_that_does(
    setup, goal: str, without: tuple[str, ...], packages: str
):
    done = setup(goal, without=without)
    line = f"apt-get install -y --no-install-recommends {packages}"
    assert done.stderr.splitlines() == [
        "setup: packages are missing. Run this line, then the command again:",
        f"  sudo apt-get update && sudo {line}",
    ]
    assert (done.returncode, done.stdout) == (1, "")


def test_where_packages_have_other_names_it_says_those_of_debian(setup):
    done = setup("build", without=("c++", "apt-get"))
    names = "missing on this machine (Debian names): g++"
    assert done.stderr == f"setup: {names}. Install them, then run this again.\n"
    assert done.returncode == 1


def test_root_has_them_installed(setup, tmp_path: Path):
    called = f'echo "$*" >>{tmp_path}/called'
    done = setup("build", without=("c++",), id="echo 0", **{"apt-get": called})
    assert (done.returncode, done.stdout) == (0, "setup: installing g++\n")
    assert (tmp_path / "called").read_text().splitlines() == [
        "update -qq",
        "install -y --no-install-recommends g++",
    ]


@pytest.mark.parametrize(
    ("version", "is_too_old"), [("1.70.0", True), ("1.9.0", True), ("1.1000.0", False)]
)
def test_an_old_compiler_is_told_of(setup, version: str, is_too_old: bool):
    done = setup("build", rustc=f"echo 'rustc {version} (0123456789 2023-06-01)'")
    told = (
        f"Rust {version} is too old, {OLDEST} or newer is needed: rustup update stable"
    )
    assert done.stderr == (f"setup: {told}\n" if is_too_old else "")
    assert done.returncode == is_too_old


OLD_PYTHON = """\
setup: the tests need Python 3.11 or newer, as Debian 12 and Ubuntu 24.04 have it
"""


def test_an_old_python_is_told_of_before_anything_is_installed(setup):
    done = setup("test", without=("curl",), python3="exit 1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", OLD_PYTHON)


def test_a_python_that_was_just_installed_may_be_old_too(setup, tmp_path: Path):
    old = f"/bin/ln -s {shutil.which('false')} {tmp_path}/python3"
    apt_get = {"apt-get": f'[ "$1" != install ] || {old}'}
    done = setup("test", without=("python3",), id="echo 0", cmp="exit 1", **apt_get)
    assert done.stdout == "setup: installing python3 python3-venv\n"
    assert (done.returncode, done.stderr) == (1, OLD_PYTHON)


def test_without_rust_it_says_where_it_comes_from(setup):
    done = setup("build", without=("cargo",))
    assert "setup: Rust is missing. Install it from https://rustup.rs" in done.stderr
    assert done.returncode == 1
