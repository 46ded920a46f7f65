"""What tests of the shared package share."""

import os

import pytest

from tests.utils.base.whole import USUAL


@pytest.fixture(params=USUAL, ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)
