"""A model that is in memory."""

from __future__ import annotations

import pytest

from blip2cli.model.wrapper import Blip2
from tests.pipeline.helpers import Loader


@pytest.fixture
def loader(model: Blip2) -> Loader:
    """Gives the model of the session, whatever the options."""
    return lambda options: model
