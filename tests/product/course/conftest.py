"""What tests of the course share."""

import pytest


@pytest.fixture
def in_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
