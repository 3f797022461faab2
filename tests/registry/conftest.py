"""One registry of each kind for the tests of a file; every test has subjects of its own."""

from __future__ import annotations

import pytest
from registries import Apicurio, Embedded


def running(kind, folder):
    registry = kind(folder)
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    yield from running(Embedded, tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="module")
def apicurio(tmp_path_factory):
    yield from running(Apicurio, tmp_path_factory.mktemp("apicurio"))


@pytest.fixture(params=["embedded", "apicurio"])
def registry(request):
    return request.getfixturevalue(request.param)
