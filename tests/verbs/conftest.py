"""What most verbs are tried on."""

import pytest

from tests.tiny import tiny_bert


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("model"))
