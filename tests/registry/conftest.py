"""One registry of each kind for all tests here; every test has subjects of its own."""

from __future__ import annotations

import pytest
from registries import Apicurio, Embedded


def running(kind, folder):
    registry = kind(folder)
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory):
    yield from running(Embedded, tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="session")
def apicurio(tmp_path_factory):
    yield from running(Apicurio, tmp_path_factory.mktemp("apicurio"))


@pytest.fixture(params=["embedded", "apicurio"])
def registry(request):
    return request.getfixturevalue(request.param)
