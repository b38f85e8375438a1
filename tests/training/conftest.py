from __future__ import annotations

import pytest
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from training.build import build_config, build_model, build_processor


@pytest.fixture(scope="session")
def processor() -> Blip2Processor:
    return build_processor()


@pytest.fixture(scope="session")
def fresh(processor: Blip2Processor) -> Blip2ForConditionalGeneration:
    """An untrained model of the embedded models' shape."""
    return build_model(build_config(processor)).eval()
