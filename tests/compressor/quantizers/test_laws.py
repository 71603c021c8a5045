"""Laws of every quantizer in the folder."""

import importlib
import re

import pytest

from genstack.testing import laws_in, quantizers


@pytest.mark.parametrize("law", laws_in(quantizers), ids=lambda law: law.__name__)
def test_quantizer_keeps_the_law(quantizer, law):
    law(quantizer)


def test_module_names_its_paper(quantizer):
    assert re.search(r"arXiv:\d{4}\.\d{5}", importlib.import_module(type(quantizer).__module__).__doc__)
