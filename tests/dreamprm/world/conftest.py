import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from dreamprm.world import base_folder


@pytest.fixture(scope="session")
def base_processor():
    return AutoProcessor.from_pretrained(base_folder())


@pytest.fixture(scope="session")
def base_model():
    return AutoModelForImageTextToText.from_pretrained(base_folder()).eval()
