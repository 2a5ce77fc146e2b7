"""Every example of README.md and docs/ does what its page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil.example import SybilFailure

from tests.docs.examples import ROOT, SHOWN_POSTGRES, Page, Place, matches_json, matches_text
from tests.postgres import PostgresServer

# Pages whose commands take minutes; their links are checked all the same.
NOT_RUN = {ROOT / "docs" / "explanation" / "performance.md"}
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - NOT_RUN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    postgres = None
    if SHOWN_POSTGRES in page.read_text(encoding="utf-8"):
        server: PostgresServer = request.getfixturevalue("postgres")
        postgres = server.create_database(f"docs_{page.stem.replace('-', '_')}").partition("://")[2]
    place = Place(tmp_path, postgres)
    try:
        Page(page, place).check()
    finally:
        place.close()
