"""User classifiers, and agreement of images with their condition."""

import pytest
import torch
from torch import nn

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ClassLabels, Unconditional
from genstack.conditions.captions import Captions
from genstack.data import ImageData
from genstack.data.images import Preprocessing, save
from genstack.errors import UserError
from genstack.evaluation.agreement import (
    UNKNOWN,
    ClassifierMatcher,
    OracleMatcher,
    matchers_for,
    requested_class,
)
from genstack.evaluation.classifiers import load_classifier
from genstack.evaluation.extractor import Extractor, Features
from genstack.evaluation.reference import ReferenceSet
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

SIZE = (6, 10)
NAMES = ("dull", "reddish", "greenish", "blueish")


class Brightest(nn.Module):
    """Predict the brightest channel as a class, after a first class that is never predicted."""

    def forward(self, images):
        means = images.mean((2, 3))
        return torch.cat([means.amin(1, keepdim=True) - 1, means], dim=1)


class MeanFeatures(Extractor):
    name, frechet, kid, score = "Means", "FD-Means", "KID-Means", "ClassifierScore-Means"
    metadata = {}

    def __init__(self, device="cpu"):
        pass

    def __call__(self, images):
        means = images.mean((2, 3))
        return Features(means, means.softmax(1))


def tinted(labels):
    """Noise with one brighter channel."""
    images = torch.rand(len(labels), 3, *SIZE) - 1
    images[torch.arange(len(labels)), torch.tensor(labels) - 1] += 0.8
    return images


@pytest.fixture
def data():
    return ImageData("shapes:20", SIZE)


def exported(path, sizes, batch):
    """Export the network for any batch size, or for a fixed one."""
    images = torch.rand(batch or 3, 3, *sizes)
    dynamic = None if batch else ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Brightest().eval(), (images,), dynamic_shapes=dynamic)
    if path.suffix == ".pt2":
        torch.export.save(program, path)
    else:
        torch.onnx.export(program, input_names=["x"], output_names=["y"], dynamo=True, verbose=False).save(
            path
        )
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "sizes", "batch"),
    [(".pt2", SIZE, None), (".pt2", SIZE, 4), (".pt2", (9, 8), None), (".onnx", (9, 8), 4)],
    ids=str,
)
def test_exported_classifier_predicts_what_its_network_does(suffix, sizes, batch, data, tmp_path):
    path = exported(tmp_path / f"net{suffix}", sizes, batch)
    labels = [1, 3, 2, 2, 1, 3, 3]
    classifier = load_classifier(path, NAMES, data, [], "cpu")
    assert classifier(tinted(labels)).tolist() == labels
    assert classifier.classes == NAMES and len(classifier.metadata["sha256"]) == 64


def test_text_file_beside_a_program_names_its_classes(data, tmp_path):
    path = exported(tmp_path / "net.pt2", SIZE, None)
    (tmp_path / "net.txt").write_text("a\nb\n\nc d\ne\n")
    assert load_classifier(path, NAMES, data, [], "cpu").classes == ("a", "b", "c d", "e")
    (tmp_path / "net.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"returns shape \(2, 4\), expected 2 classes"):
        load_classifier(path, (), data, [], "cpu")(tinted([1, 2]))


def pictures_of(folder, count=4):
    """Save a folder of images for each class but the first."""
    for label, name in enumerate(NAMES[1:], 1):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(tinted([label] * count)):
            save(image, folder / name / f"{number}.png", Preprocessing(3, *SIZE), {})
    return str(folder)


def test_nearest_example_images_vote(data, tmp_path):
    classifier = load_classifier(pictures_of(tmp_path / "known"), (), data, [MeanFeatures()], "cpu")
    assert classifier.classes == ("blueish", "greenish", "reddish")
    read = [classifier.classes[number] for number in classifier(tinted([3, 1, 2, 1])).tolist()]
    assert read == ["blueish", "reddish", "greenish", "reddish"]
    assert classifier.metadata["count"] == 12


def test_invalid_classifiers_are_rejected(data, tmp_path):
    (tmp_path / "few" / "a").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        save(tinted([1])[0], tmp_path / "few" / "a" / name, Preprocessing(3, *SIZE), {})
    (tmp_path / "damaged.pt2").write_bytes(b"no program")
    (tmp_path / "damaged.onnx").write_bytes(b"no program")
    for name, said in {
        "missing.pt2": "expected a .pt2 or .onnx file",
        "few": "has 2 images of 1 classes",
        "damaged.pt2": "cannot read classifier",
        "damaged.onnx": "cannot read classifier",
    }.items():
        with pytest.raises(UserError, match=said):
            load_classifier(str(tmp_path / name), NAMES, data, [MeanFeatures()], "cpu")
    with pytest.raises(UserError, match="needs the features"):
        load_classifier(str(tmp_path / "few"), NAMES, data, [], "cpu")
    with pytest.raises(UserError, match="has no class names"):
        load_classifier(exported(tmp_path / "net.pt2", SIZE, None), (), data, [], "cpu")


@pytest.mark.parametrize(
    ("condition", "number"),
    [
        ({"class": "cat"}, 0),
        ({"class": "cats"}, -1),
        ({"caption": "a Cat on a mat"}, 0),
        ({"caption": "concatenated"}, -1),
        ({"caption": "a cat and a red dog"}, -1),
        ({"caption": "a red dog"}, 1),
        ({}, -1),
    ],
)
def test_requested_class_of_labels_and_captions(condition, number):
    assert requested_class(condition, ("cat", "red dog", "dog house")) == number


def steered(condition, classes=()):
    """An untrained model."""
    network = Convolutional(4, 8, (1, 1), 1, (), False)
    compressor = Autoencoder(3, network, VectorQuantizer(8, 4))
    prior = Autoregressive(compressor.layout(*SIZE), condition, Backbone(16, 1, 2))
    return Model(compressor, Preprocessing(3, *SIZE), classes, prior)


def test_classifier_matcher_compares_predictions_with_labels(data, tmp_path):
    classifier = load_classifier(exported(tmp_path / "net.pt2", SIZE, None), NAMES, data, [], "cpu")
    matcher = ClassifierMatcher(classifier, steered(ClassLabels(NAMES), NAMES).condition)
    drawn, labels = [1, 2, 3, 1], [1, 2, 2, 3]
    assert matcher(tinted(drawn), ConditionInputs(torch.tensor(labels))).tolist() == [1, 1, 0, 0]


def test_captions_that_name_no_class_are_unknown(data, tmp_path):
    classifier = load_classifier(exported(tmp_path / "net.pt2", SIZE, None), NAMES, data, [], "cpu")
    condition = Captions(vocabulary=300, depth=1, heads=2).fit(data.info)
    matcher = ClassifierMatcher(classifier, condition)
    inputs = ConditionInputs(torch.zeros(3, dtype=torch.int64), ("reddish", "something", "quite blueish"))
    found = matcher(tinted([1, 1, 1]), inputs)
    torch.testing.assert_close(found, torch.tensor([1, UNKNOWN, 0]), equal_nan=True)


def test_matchers_fit_the_condition(tmp_path):
    data = ImageData("shapes:20", (32, 32))
    inputs = ReferenceSet(data, "all").batch(range(8)).inputs
    classes = data.class_names
    model = steered(ClassLabels(classes), classes)
    (oracle,) = matchers_for(model, data, inputs, None)
    assert isinstance(oracle, OracleMatcher)
    assert oracle(ReferenceSet(data, "all").batch(range(8)).images, inputs).mean() > 0.8
    assert not matchers_for(steered(Unconditional()), data, inputs, None)
    stranger = load_classifier(exported(tmp_path / "net.pt2", SIZE, None), NAMES, data, [], "cpu")
    with pytest.raises(UserError, match=r"does not know .*; its classes are dull, reddish"):
        matchers_for(model, data, inputs, stranger)
    with pytest.raises(UserError, match="without classes and captions; leave out --classifier"):
        matchers_for(steered(Unconditional()), data, inputs, stranger)
