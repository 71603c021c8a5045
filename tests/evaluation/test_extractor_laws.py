"""Laws of an extractor whose weights are always there; the tests of others have the same laws."""

import pytest

from genstack.evaluation.extractors.efficientnet import EfficientNetFeatures
from genstack.testing import laws


@pytest.mark.parametrize("law", laws(EfficientNetFeatures), ids=str)
def test_extractor_keeps_the_law(law):
    law()
