"""Condition images as codes of their own compressor: in its channels, by a table of either kind."""

import copy

import pytest
import torch

from genstack.compressor import Autoencoder, Convolutional, Strided
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ImageCodes
from genstack.data.images import Preprocessing
from genstack.inputs import ConditionInputs, DataInfo, Prompts
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.prior.masked import Masked
from genstack.transformer import Backbone

LAYOUT = CodeLayout((16, 24), 9, ((2, 3),))
DATA = DataInfo(image_shape=(3, 16, 24))
SMALL = Backbone(16, 1, 2, dropout=0.0)


def network(channels=3, size=7):
    return Autoencoder(channels, Strided(8, 4, 1, 8), VectorQuantizer(size, 4)).eval().requires_grad_(False)


def inputs(images):
    return ConditionInputs(torch.zeros(len(images), dtype=torch.int64), images=images)


def test_values_are_codes_of_the_compressor():
    made, images = network(), torch.rand(2, 3, 16, 24) * 2 - 1
    condition = ImageCodes(network=made).fit(DATA)
    assert condition.length == 24 and condition.layout == made.layout(16, 24)
    assert torch.equal(condition.encode(inputs(images)), made.encode(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(condition.encode(inputs(images)), made.encode(images))
    assert (condition.encode(ConditionInputs.nothing(2)) == 7).all()


@pytest.mark.parametrize(("channels", "given"), [(1, 3), (3, 1), (4, 3), (3, 4), (1, 1), (5, 3)])
def test_images_are_converted_to_the_compressors_channels(channels, given):
    condition = ImageCodes(network=network(channels)).fit(DATA)
    images = torch.tensor([-1.0, -1 + 2 / 255, -1 + 4 / 255, 1.0])[None, None, None].expand(1, given, 2, 4)
    seen = condition.convert(images)
    assert seen.shape == (1, channels, 2, 4)
    if channels == 5:
        assert seen[0, :, 0].argmax(0).tolist() == [0, 1, 2, 4], (
            "a class for each grey, the last for all above"
        )
        assert torch.equal(seen.sum(1), torch.ones(1, 2, 4))
    else:
        torch.testing.assert_close(seen[:, :3], images[:, :1].expand(-1, min(3, channels), -1, -1))
    assert condition.encode(inputs(images.new_zeros(1, given, 16, 24))).shape == (1, 24)


def test_shared_table_is_the_code_embedding():
    """A gradient of either reaches the same rows, and copies and files keep it so."""
    condition = ImageCodes(network=network(), table="shared").fit(DATA)
    prior = Autoregressive(LAYOUT, condition, SMALL)
    assert prior.prefix.table is prior.codes
    again = copy.deepcopy(prior)
    assert again.prefix.table is again.codes and again.condition is condition
    names = [name for name, _ in prior.named_parameters()]
    assert "codes.weight" not in names or "prefix.table.weight" not in names
    values = condition.encode(inputs(torch.zeros(1, 3, 16, 24)))
    tokens = prior.prefix(values)[0] - prior.prefix.position_embedding.weight
    torch.testing.assert_close(tokens, prior.codes(values[0]))


def test_tables_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match=r"prior's 9 codes are fewer than the 10 codes of condition images"):
        Autoregressive(LAYOUT, ImageCodes(network=network(size=10), table="shared").fit(DATA), SMALL)
    condition = ImageCodes(network=network(), table="shared").fit(DATA)
    codes, values = torch.zeros(1, 6, dtype=torch.int64), condition.encode(inputs(torch.zeros(1, 3, 16, 24)))
    with pytest.raises(ValueError, match="only the prior Autoregressive can share its embedding"):
        Masked(LAYOUT, condition, SMALL).loss(codes, values)


def test_condition_compressor_is_saved_beside_the_prior():
    made = network()
    prior = Autoregressive(CodeLayout((16, 24), 5, ((4, 6),)), ImageCodes(network=made).fit(DATA), SMALL)
    assert not any("network" in name for name in prior.state_dict())
    compressor = Autoencoder(3, Strided(8, 4, 1, 8), VectorQuantizer(5, 4))
    model = Model(compressor, Preprocessing(3, 16, 24), prior=prior)
    assert model.modules()["condition"] is made
    assert "condition" not in Model(compressor, Preprocessing(3, 16, 24)).modules()


def test_errors_explain_mistakes():
    with pytest.raises(ValueError, match="the compressor of condition images is missing"):
        ImageCodes().fit(DATA)
    with pytest.raises(ValueError, match="network of condition images is set from `compressor`"):
        ImageCodes(network="runs/maps")
    with pytest.raises(ValueError, match="the data has no condition images"):
        ImageCodes(network=network()).fit(DataInfo(image_shape=(3, 0, 0)))
    with pytest.raises(ValueError, match="use 16x20"):
        ImageCodes(network=network()).fit(DataInfo(image_shape=(3, 18, 21)))
    plain = Autoencoder(3, Convolutional(4, 8, (1, 1), 1, (), double=True), Gaussian(4)).eval()
    with pytest.raises(ValueError, match="has no codes; use one with a quantizer"):
        ImageCodes("runs/vae", network=plain).fit(DATA)
    with pytest.raises(ValueError, match="was trained without dropout and needs condition images"):
        ImageCodes(network=network(), dropout=0.0).fit(DATA).modality.select(Prompts(), 1)
