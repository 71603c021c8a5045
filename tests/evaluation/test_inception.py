"""Inception metrics compared with torch-fidelity, with random weights in place of the published ones.

torch-fidelity reads pictures from files and computes its metrics; genstack evaluates the same two folders.
"""

import hashlib
import json

import pytest
import torch
from torch import nn
from torch_fidelity import calculate_metrics, feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id_cached

from genstack.cli.main import main
from genstack.data import ImageData
from genstack.data.images import Preprocessing, save
from genstack.evaluation.extractors import inception
from genstack.evaluation.extractors.inception import FILE, InceptionFeatures
from genstack.evaluation.metrics.coverage import coverage
from genstack.evaluation.metrics.frechet import frechet_distance
from genstack.evaluation.reference import ReferenceSet
from genstack.testing import laws

pytestmark = pytest.mark.nightly

SIZE = (29, 37)  # neither square nor even, so that a swapped axis shows
COUNT = 18


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file like the published one, with weights that tell images apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        network = FeatureExtractorInceptionV3("inception", ["2048"])
    torch.manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.1, 0.1)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    network.fc.bias.uniform_(-3, 3)  # which "unbiased" logits leave out
    path = tmp_path_factory.mktemp("weights") / FILE
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of pictures."""
    place = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(3)
    for name, contrast in (("real", 1.0), ("fake", 0.6)):
        (place / name).mkdir()
        for number in range(COUNT):
            coarse = torch.rand(1, 3, 4, 5, generator=generator) * 2 - 1
            image = nn.functional.interpolate(coarse, SIZE, mode="bicubic")[0] * contrast
            save(image, place / name / f"{name}{number:02}.png", Preprocessing(3, *SIZE), {})
    return place


@pytest.fixture
def trusted(weights, monkeypatch):
    """Accept these weights as the published ones."""
    trust(weights, monkeypatch)


def trust(weights, patch):
    patch.setenv("GENSTACK_WEIGHTS", str(weights.parent))
    patch.setattr(inception, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest()[:8])


def test_extractor_keeps_the_laws(trusted):
    for law in laws(InceptionFeatures):
        law()


def settings(weights, folders):
    """Settings of torch-fidelity: one block, no shuffling, no cache."""
    return {
        "input1": str(folders / "fake"),
        "input2": str(folders / "real"),
        "feature_extractor": "inception-v3-compat",
        "feature_extractor_weights_path": str(weights),
        "cuda": False,
        "cache": False,
        "verbose": False,
        "save_cpu_ram": True,  # no workers
        "batch_size": 7,
        "isc_splits": 1,
        "kid_subsets": 1,
        "kid_subset_size": COUNT,
        "prc_neighborhood": 3,
    }


@pytest.fixture(scope="module")
def theirs(weights, folders):
    """Features and logits of both folders by torch-fidelity."""
    options = settings(weights, folders)
    network = create_feature_extractor("inception-v3-compat", ["2048", "logits_unbiased"], **options)
    return [extract_featuresdict_from_input_id_cached(number, network, **options) for number in (2, 1)]


@pytest.fixture(scope="module")
def ours(weights, folders):
    """Features of both folders by genstack."""
    with pytest.MonkeyPatch.context() as patch:
        trust(weights, patch)
        extractor = InceptionFeatures("cpu")
    sides = [ReferenceSet(ImageData(str(folders / name), SIZE), "all") for name in ("real", "fake")]
    return [extractor(side.batch(range(COUNT)).images) for side in sides]


def test_features_and_classes_match_torch_fidelity(ours, theirs):
    for features, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(features.vectors, expected["2048"], rtol=1e-4, atol=1e-5)
        classes = expected["logits_unbiased"].double().softmax(1)
        torch.testing.assert_close(features.probabilities, classes.float(), rtol=1e-4, atol=1e-6)
        assert features.vectors.std(0).median() > 0.01, "features must differ between images"
        assert features.probabilities.max(1).values.median() < 0.99


def test_spatial_features_are_those_of_torch_fidelitys_network(trusted):
    """The first channels of one branch, in the order row, column, channel."""
    extractor, seen = InceptionFeatures("cpu", spatial=True), []
    extractor.network.Mixed_6d.branch1x1.register_forward_hook(lambda *given: seen.append(given[2]))
    found = extractor(torch.rand(2, 3, *SIZE) * 2 - 1).spatial
    assert found.shape == (2, 17 * 17 * 7)
    for row, column, channel in ((0, 0, 0), (3, 11, 2), (16, 5, 6)):
        assert torch.equal(found[:, (17 * row + column) * 7 + channel], seen[0][:, channel, row, column])
    assert found.min() == 0 and found.max() > 0, "after the ReLU"


def test_precision_and_recall_match_torch_fidelity(ours, theirs):
    real, fake = (side["2048"] for side in theirs)
    expected = prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=5, save_cpu_ram=True)
    found = coverage(*(features.vectors for features in ours))
    assert float(found.precision.mean()) == pytest.approx(expected["precision"])
    assert float(found.recall.mean()) == pytest.approx(expected["recall"])


def test_frechet_distance_matches_torch_fidelity(ours, theirs):
    """Use every eighth feature, since torch-fidelity takes minutes for all."""
    real, fake = (fid_features_to_statistics(side["2048"][:, ::8].double()) for side in theirs)
    expected = fid_statistics_to_metric(fake, real, False)["frechet_inception_distance"]
    found = frechet_distance(*(features.vectors[:, ::8].double() for features in ours))
    assert found == pytest.approx(expected, rel=1e-4)


def test_card_matches_torch_fidelity(weights, folders, trusted, monkeypatch):
    expected = calculate_metrics(isc=True, kid=True, **settings(weights, folders))
    monkeypatch.setattr(
        "genstack.evaluation.networks.available_extractors", lambda device: ([InceptionFeatures(device)], {})
    )
    words = [str(folders / "real"), str(folders / "fake"), "--lpips", "none", "--device", "cpu"]
    assert main(["evaluate", *words, "--batch-size", "5"]) is None
    card = json.loads((folders / "fake.evaluation" / "card.json").read_text())
    numbers = {number["name"]: number["value"] for number in card["numbers"]}
    assert numbers["KID"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert numbers["InceptionScore"] == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    skipped = [each["name"] for each in card["skipped"]]
    assert skipped == ["FD-DINOv2", "FID"], "no DINOv2 is named, and 18 images are too few"
    metadata = card["protocol"]["extractors"]["KID"]
    assert metadata["file_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
