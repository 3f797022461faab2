"""The pages of a process, held against Prometheus' own checker and against the docs."""

from __future__ import annotations

import gzip
import re
import urllib.request

from monitoring import promtool
from processes import ROOT

DOCS = (ROOT / "docs" / "metrics.md").read_text()
DOCUMENTED = set(re.findall(r"^\| `(aion_\w+)`", DOCS, re.MULTILINE))
PATHS = ("/metrics", "/metrics/platform")


def compressed_page(http: str, path: str) -> str:
    """A page as Prometheus asks for it, which takes gzip."""
    request = urllib.request.Request(
        f"http://{http}{path}", headers={"Accept-Encoding": "gzip"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        assert answer.headers["Content-Encoding"] == "gzip", path
        return gzip.decompress(answer.read()).decode()


def names(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def shown(http: str) -> set[str]:
    """The names on both pages."""
    return {name for path in PATHS for name in names(compressed_page(http, path))}


def checked(http: str) -> None:
    """Both pages are clean, and all that is on them, apart from what events name, is documented."""
    for path in PATHS:
        text = compressed_page(http, path)
        assert text.startswith("# HELP"), text[:200]
        tried = promtool("check", "metrics", text=text)
        assert tried.returncode == 0, tried.stdout + tried.stderr
        own = {name for name in names(text) if not name.startswith("aion_runtime_")}
        assert own <= DOCUMENTED, own - DOCUMENTED
