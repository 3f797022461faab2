"""SQLAlchemy and pandas over PostgreSQL's protocol: what docs/sql.md says that works, and what it says that doesn't."""

from __future__ import annotations

import io
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta

import pandas
import polars
import pytest
import sqlalchemy
from processes import Dev
from sqlalchemy import column, func, inspect, select, table, text

DECISIONS = table("decisions", column("route"), column("size"), column("timestamp"))


@pytest.fixture(scope="module")
def engine(live: Dev):
    engine = sqlalchemy.create_engine(
        f"postgresql+psycopg://me@{live.postgres}/aion", pool_pre_ping=True
    )
    yield engine
    engine.dispose()


# The offsets that every partition has from the start on: what lies below changes no more.
STILL = "_offset < 5 order by _partition, _offset"


def by_http(live: Dev, query: str) -> polars.DataFrame:
    url = f"http://{live.http}/v1/sql?{urllib.parse.urlencode({'format': 'parquet'})}"
    with urllib.request.urlopen(url, query.encode(), timeout=60) as answer:
        return polars.read_parquet(io.BytesIO(answer.read()))


def test_a_frame_has_what_the_table_has(live, engine):
    query = f"select * from decisions where {STILL}"
    frame = pandas.read_sql(query, engine)
    other = by_http(live, query)
    assert list(frame.columns) == other.columns and len(frame) == other.height > 10
    for name in other.columns:
        theirs = other[name].to_list()
        ours = [None if pandas.isna(value) else value for value in frame[name]]
        assert ours == theirs, name
    assert isinstance(frame["timestamp"].dtype, pandas.DatetimeTZDtype)
    assert frame["_offset"].dtype == "int64" and frame["cost_budget"].dtype == "float64"


def test_parameters_and_pieces(engine):
    since = datetime.now(UTC) - timedelta(hours=1)
    query = text("select task_id from tasks where timestamp > :since and retries >= :n")
    frame = pandas.read_sql(query, engine, params={"since": since, "n": 0})
    assert len(frame) > 0
    query = "select task_id from decisions limit 35"
    pieces = pandas.read_sql(query, engine, chunksize=10)
    assert [len(piece) for piece in pieces] == [10, 10, 10, 5]


def test_statements_made_by_sqlalchemy(engine):
    route, size, timestamp = (DECISIONS.c[n] for n in ("route", "size", "timestamp"))
    with engine.connect() as connection:
        first = connection.scalar(select(route).limit(1))
        many = select(route, func.count(), func.max(timestamp)).where(
            size >= 0, route.in_([first, "nowhere"]), route.ilike(f"%{first[1:]}")
        )
        many = many.group_by(route).order_by(func.count().desc()).limit(3)
        ((found, count, newest),) = connection.execute(many).all()
        assert (found, count > 0, newest.tzinfo) == (first, True, UTC)
    with engine.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(DECISIONS)) > 0


def test_names_are_found(engine):
    inspector = inspect(engine)
    assert {"decisions", "tasks", "lag"} <= set(inspector.get_table_names())
    assert set(inspector.get_view_names()) == {"task_latency", "decision_outcomes"}
    assert inspector.has_table("decisions") and not inspector.has_table("decision")
    query = text(
        "select column_name from information_schema.columns where table_name = :t"
    )
    with engine.connect() as connection:
        columns = connection.scalars(query, {"t": "decisions"}).all()
    assert {"route", "timestamp", "_offset"} <= set(columns)


def test_a_connection_outlives_an_error(engine):
    with engine.connect() as connection:
        with pytest.raises(sqlalchemy.exc.ProgrammingError) as failed:
            connection.execute(text("select * from nothing"))
        assert failed.value.orig.sqlstate == "42P01"
        connection.rollback()
        assert connection.scalar(text("select 1")) == 1


def reflect(engine) -> object:
    return sqlalchemy.Table(
        "decisions", sqlalchemy.MetaData(), autoload_with=engine
    ).columns


def stream(engine) -> object:
    with engine.connect().execution_options(stream_results=True) as connection:
        return connection.execute(text("select route from decisions")).all()


@pytest.mark.parametrize(
    "what",
    [
        reflect,
        stream,
        lambda engine: pandas.read_sql_table("decisions", engine),
        lambda engine: inspect(engine).get_columns("decisions"),
        lambda engine: inspect(engine).get_schema_names(),
        lambda engine: pandas.DataFrame({"a": [1]}).to_sql("mine", engine),
    ],
)
def test_what_is_not_there_is_an_error_and_no_wrong_answer(engine, what):
    with pytest.raises((sqlalchemy.exc.DBAPIError, pandas.errors.DatabaseError)):
        what(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
