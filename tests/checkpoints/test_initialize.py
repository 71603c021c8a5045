"""Priors that begin with the weights of another on other classes, captions or none."""

import pytest
import torch

from genstack.checkpoints import model_file
from genstack.checkpoints.initialize import initialized_prior
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import Captions, ClassLabels, Unconditional
from genstack.conditions.vocabulary import learn_merges
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

WIDTH = 16


@pytest.fixture
def start(tmp_path):
    """A function that saves a prior on one condition, and begins another with its weights on a second one."""
    compressor = Autoencoder(3, Strided(8, 4, 1, 4), VectorQuantizer(16, 4)).eval()

    def make(layout, condition):
        return Autoregressive(layout, condition, Backbone(WIDTH, 1, 2))

    def run(condition, other, make_other=make):
        before = make(compressor.layout(16, 16), condition)
        names = condition.names if isinstance(condition, ClassLabels) else ()
        model = Model(compressor, Preprocessing(3, 16, 16), names, before)
        model_file.save(model, tmp_path)
        said = []
        prior = initialized_prior(make_other, tmp_path, model, said.append)(before.layout, other)
        return before.eval(), prior.eval(), said

    return run


@torch.no_grad()
def test_classes_of_the_same_name_keep_their_row(start):
    before, prior, (said,) = start(ClassLabels(("a", "b", "c", "d")), ClassLabels(("x", "d", "b")))
    assert said.endswith("2 of 3 classes are found by name (b, d); others are initialized anew")
    codes = torch.randint(16, (3, 16))
    old, new = torch.tensor([3, 1, 4]), torch.tensor([1, 2, 3])  # d, b and the null class
    assert torch.equal(prior.logits(codes, new), before.logits(codes, old))
    table = before.prefix.table.weight
    assert not (prior.prefix.table.weight[0] == table).all(1).any()


def test_other_classes_are_newly_initialized(start):
    before, prior, (said,) = start(ClassLabels(("a", "b")), ClassLabels(("x", "y")))
    assert said.endswith("the embedding of the condition ClassLabels is initialized anew")
    assert not torch.equal(prior.prefix.table.weight[:2], before.prefix.table.weight[:2])
    assert torch.equal(prior.head.weight, before.head.weight)


@pytest.mark.parametrize(
    ("condition", "other"),
    [
        (ClassLabels(("a", "b")), ClassLabels(("a", "b"))),
        (ClassLabels(("0", "1", "2")), ClassLabels(("cat", "dog", "eel"))),  # a file that counts its classes
        (Unconditional(), Unconditional()),
    ],
)
def test_same_classes_keep_their_table(start, condition, other):
    before, prior, said = start(condition, other)
    assert said == []
    assert all(map(torch.equal, prior.state_dict().values(), before.state_dict().values()))


@pytest.mark.parametrize(
    ("condition", "other"),
    [
        (Unconditional(), ClassLabels(("a", "b"))),
        (ClassLabels(("a", "b")), Captions(length=4, depth=1, heads=2)),
    ],
)
def test_another_condition_is_newly_initialized(start, condition, other):
    before, prior, (said,) = start(condition, other)
    assert said.endswith(f"the embedding of the condition {type(other).__name__} is initialized anew")
    assert torch.equal(prior.head.weight, before.head.weight)


def test_tokens_of_captions_keep_their_row(start):
    first, second = (learn_merges([text] * 9, 262) for text in ("red red green", "green blue blue"))
    conditions = (
        Captions(length=length, depth=1, merges=merges) for length, merges in ((4, first), (6, second))
    )
    before, prior, (said,) = start(*conditions)
    assert " tokens are found by name (" in said
    assert torch.equal(prior.prefix.tokens.weight[: 256 + 1], before.prefix.tokens.weight[: 256 + 1])
    assert prior.prefix.position_embedding.weight.shape[0] == 6


def test_all_other_weights_must_fit(start):
    def wider(layout, condition):
        return Autoregressive(layout, condition, Backbone(2 * WIDTH, 1, 2))

    with pytest.raises(UserError, match="do not fit this Autoregressive"):
        start(ClassLabels(("a",)), ClassLabels(("b",)), wider)
