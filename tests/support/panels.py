"""Puts the questions of dashboards' panels to those whom they are for, with macros and variables in them expanded as
Grafana and its plug-ins do."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from clickhouse.engine import Engine
from monitoring import Prometheus

MACRO = re.compile(r"\$__(\w+?)\(([^()]*)\)")


@dataclass
class Span:
    """The time that a dashboard looks at, and how finely."""

    seconds: float
    step: int
    rate_interval: str
    end: float = field(default_factory=time.time)

    @property
    def start(self) -> float:
        return self.end - self.seconds


# A macro is a function of the span and its arguments.
Macro = Callable[..., str]


def moment(at: float) -> str:
    return f"'{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.%fZ}'"


def group(_span: Span, column: str, interval: str) -> str:
    step = seconds(interval)
    return f"floor(extract(epoch from {column})/{step})*{step}"


def seconds(interval: str) -> int:
    """Of `60`, `1m` or `'1m'`."""
    number, unit = interval.strip("'\"").rstrip("smhd"), interval.strip("'\"")[-1]
    return int(number) * {"m": 60, "h": 3600, "d": 86_400}.get(unit, 1)


POSTGRES: dict[str, Macro] = {
    "time": lambda _, column: f'{column} AS "time"',
    "timeFilter": lambda span, column: (
        f"{column} BETWEEN {moment(span.start)} AND {moment(span.end)}"
    ),
    "timeGroup": group,
    "timeGroupAlias": lambda *given: f'{group(*given)} AS "time"',
}
CLICKHOUSE: dict[str, Macro] = {
    "timeFilter": lambda span, column: (
        f"{column} >= toDateTime({int(span.start)})"
        f" AND {column} <= toDateTime({int(span.end)})"
    ),
    "timeInterval": lambda span, column: (
        f"toStartOfInterval(toDateTime({column}), INTERVAL {span.step} second)"
    ),
}


def expanded(text: str, span: Span, macros: dict[str, Macro]) -> str:
    """A macro that isn't known is an error here, as it is there."""
    text = text.replace("$__interval_s", str(span.step))
    text = text.replace("$__interval", str(span.step))

    def one(found: re.Match[str]) -> str:
        arguments = [part.strip() for part in found[2].split(",")]
        return macros[found[1]](span, *arguments)

    text = MACRO.sub(one, text)
    assert "$" not in text, text
    return text


@dataclass
class Rows:
    """An answer in rows."""

    columns: list[str]
    rows: list[tuple]

    def series(self) -> dict[str, list[tuple[float, float]]]:
        """As lines over time: those of one name have the same text in the column `series` or `metric`."""
        at, value = self.columns.index("time"), self.columns.index("value")
        names = [i for i, c in enumerate(self.columns) if c in ("series", "metric")]
        found: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            when = row[at].timestamp() if isinstance(row[at], datetime) else row[at]
            name = str(row[names[0]]) if names else "value"
            if row[value] is not None:
                found.setdefault(name, []).append((float(when), float(row[value])))
        return found


class Sources:
    """A Prometheus, a ClickHouse and the process that answers PostgreSQL's clients."""

    def __init__(
        self, prometheus: Prometheus, engine: Engine, postgres: dict[str, str]
    ) -> None:
        self.prometheus, self.engine, self.postgres = prometheus, engine, postgres

    def rows(self, target: dict, span: Span) -> Rows:
        """The answer to a question in SQL. An error is raised."""
        if target["datasource"]["uid"] == "${clickhouse}":
            return self.of_clickhouse(expanded(target["rawSql"], span, CLICKHOUSE))
        return self.of_postgres(expanded(target["rawSql"], span, POSTGRES))

    def of_clickhouse(self, text: str) -> Rows:
        form = "JSONCompactEachRowWithNamesAndTypes"
        answer = self.engine.rows(text, form, database="aion")
        columns, types, *rows = answer
        return Rows(columns, [tuple(map(typed, types, row)) for row in rows])

    def of_postgres(self, text: str) -> Rows:
        with psycopg.connect(**self.postgres, autocommit=True) as connection:
            answer = connection.execute(text)
            columns = [column.name for column in answer.description]
            return Rows(columns, answer.fetchall())

    def series(self, target: dict, span: Span) -> dict[str, list[tuple[float, float]]]:
        """The lines of a graph, or the one point of each number, by the name in the legend."""
        if "expr" not in target:
            answer = self.rows(target, span)
            if "time" in answer.columns:
                return answer.series()
            return {
                name: [(span.end, float(value))]
                for name, value in zip(answer.columns, answer.rows[0], strict=True)
                if value is not None
            }
        query = target["expr"].replace("$__rate_interval", span.rate_interval)
        query = query.replace("$instance", ".*")
        if target.get("instant"):
            answer = self.prometheus.get("/api/v1/query", query=query)
        else:
            over = {"start": span.start, "end": span.end, "step": span.step}
            answer = self.prometheus.get("/api/v1/query_range", query=query, **over)
        assert answer["status"] == "success", (query, answer)
        found: dict[str, list[tuple[float, float]]] = {}
        for one in answer["data"]["result"]:
            name = target["legendFormat"]
            for label, value in one["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            name = re.sub(r"{{\w+}}", "", name).strip()  # what it lacks is empty there
            pairs = one.get("values") or [one["value"]]
            points = [(float(at), float(value)) for at, value in pairs]
            points = [point for point in points if not math.isnan(point[1])]
            if points:
                found.setdefault(name, []).extend(points)
        return found


def typed(type_name: str, value: object) -> object:
    """Times come as text, in UTC."""
    if type_name.startswith("DateTime") and value is not None:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value
