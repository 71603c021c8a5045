"""Vector quantization: losses, gradients and codebook usage."""

import pytest
import torch

from genstack.compressor.quantizers import VectorQuantizer, soft_choice
from genstack.compressor.quantizers.estimator import RotationTrick
from genstack.compressor.quantizers.update import EMAUpdate, GradientUpdate


def plain(**arguments):
    return VectorQuantizer(
        **{"codebook_size": 11, "dim": 3, "normalize": False, "codebook_init": None, **arguments}
    )


def test_losses_match_their_formulas():
    torch.manual_seed(0)
    quantizer = plain(update=GradientUpdate(2.0), commitment_weight=0.5)
    latents = torch.randn(2, 3, 5, 7, requires_grad=True)
    quantized = quantizer(latents)
    rows = quantizer.codebook.weight[quantized.codes.reshape(2, 5, 7)].movedim(-1, 1)
    mean_square = (latents - rows).detach().square().mean()
    torch.testing.assert_close(quantized.losses["codebook"], 2.0 * mean_square)
    torch.testing.assert_close(quantized.losses["commitment"], 0.5 * mean_square)
    sides = [latents, quantizer.codebook.weight]
    codebook = torch.autograd.grad(quantized.losses["codebook"], sides, allow_unused=True, retain_graph=True)
    commitment = torch.autograd.grad(quantized.losses["commitment"], sides, allow_unused=True)
    assert codebook[0] is None
    assert commitment[1] is None
    expected = 2 * 0.5 * (latents - rows).detach() / latents.numel()
    torch.testing.assert_close(commitment[0], expected)
    chosen = torch.bincount(quantized.codes.flatten(), minlength=11) > 0
    assert torch.equal(codebook[1].abs().sum(1) > 0, chosen)


@pytest.mark.parametrize("normalize", [True, False])
def test_zero_weight_has_zero_gradients(normalize):
    latents = torch.randn(2, 3, 5, 7, requires_grad=True)
    quantizer = plain(update=GradientUpdate(0.0), normalize=normalize)
    sum(quantizer(latents).losses.values()).backward()
    assert quantizer.codebook.weight.grad.abs().max() == 0
    assert latents.grad.abs().max() > 0

    latents.grad = None
    quantizer = plain(commitment_weight=0.0, normalize=normalize)
    sum(quantizer(latents).losses.values()).backward()
    assert latents.grad.abs().max() == 0
    assert quantizer.codebook.weight.grad.abs().max() > 0


def test_gradient_passes_straight_through():
    latents, weights = torch.randn(2, 3, 5, 7, requires_grad=True), torch.randn(2, 3, 5, 7)
    quantizer = plain()
    (quantizer(latents).latents * weights).sum().backward()
    assert torch.equal(latents.grad, weights)
    assert quantizer.codebook.weight.grad is None


def test_nearest_row_is_decoded():
    quantizer = plain().eval()
    latents = torch.randn(2, 3, 5, 7)
    rows = quantizer.codebook.weight.detach()
    for image in range(2):
        for row in range(5):
            for column in range(7):
                nearest = (rows - latents[image, :, row, column]).square().sum(1).argmin()
                quantized = quantizer(latents)
                assert quantized.codes[image, 7 * row + column] == nearest
                assert torch.equal(quantized.latents[image, :, row, column], rows[nearest])


def test_normalized_codes_are_the_nearest_directions():
    quantizer = VectorQuantizer(codebook_size=50, dim=4, codebook_init=None).eval()
    with torch.no_grad():
        quantizer.codebook.weight.mul_(torch.rand(50, 1) * 9 + 0.1)  # lengths are not to matter
    latents = torch.randn(2, 4, 5, 7)
    similarity = torch.cosine_similarity(
        latents[:, None], quantizer.codebook.weight[None, :, :, None, None], dim=2
    )
    quantized = quantizer(latents)
    assert torch.equal(quantized.codes, similarity.argmax(1).flatten(1))
    torch.testing.assert_close(quantized.latents.norm(dim=1), torch.ones(2, 5, 7))


def mixture(components, count, generator):
    """A sampler of latents `1 8 1 count` from well separated Gaussians on the sphere."""
    centres = torch.nn.functional.normalize(torch.randn(components, 8, generator=generator), dim=1)

    def sample():
        chosen = torch.randint(components, (count,), generator=generator)
        latents = centres[chosen] + 0.05 * torch.randn(count, 8, generator=generator)
        return latents.T.reshape(1, 8, 1, count)

    return sample


@pytest.mark.nightly
@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("update", [GradientUpdate(), EMAUpdate()])
def test_defaults_use_most_codes(collapsed, update):
    torch.manual_seed(0)
    sample = mixture(256, 512, torch.Generator().manual_seed(1))
    quantizer = VectorQuantizer(codebook_size=256, update=update).train()
    if collapsed:
        with torch.no_grad():
            quantizer.codebook.weight.copy_(torch.tensor([9.0] + [0.0] * 7) + 0.001 * torch.randn(256, 8))
        quantizer.codebook.initialized.fill_(True)
        assert len(quantizer.eval()(sample()).codes.unique()) < 64
        quantizer.train()
    encoder = torch.nn.Parameter(torch.ones(1, 8, 1, 1))  # something for an optimizer to move in either case
    optimizer = torch.optim.Adam([encoder, *quantizer.parameters()], lr=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        sum(quantizer(sample() * encoder).losses.values()).backward()
        optimizer.step()
        quantizer.after_step(skipped=False)
    quantizer.eval()
    used = torch.cat([quantizer(sample()).codes for _ in range(20)], dim=1).unique()
    assert len(used) > 0.9 * 256


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codebook_size": 0}, "codebook_size 0"),
        ({"dim": 1}, "dim 1"),
        ({"commitment_weight": -0.5}, "commitment_weight -0.5"),
        ({"dead_after": 0.0}, "dead_after 0.0"),
    ],
)
def test_invalid_arguments_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        VectorQuantizer(**wrong)


def test_invalid_update_rules_are_rejected():
    with pytest.raises(ValueError, match=r"codebook weight -1\.0"):
        GradientUpdate(-1.0)
    with pytest.raises(ValueError, match=r"decay 1\.0"):
        EMAUpdate(1.0)


def test_rotation_trick_changes_gradients_only():
    straight, turned = plain(), plain(estimator=RotationTrick())
    turned.load_state_dict(straight.state_dict())
    latents = torch.randn(2, 3, 5, 7, requires_grad=True)
    assert torch.equal(turned(latents).latents, straight(latents).latents)
    weights = torch.randn(2, 3, 5, 7)
    (turned(latents).latents * weights).sum().backward()
    assert not torch.allclose(latents.grad, weights)


COMPILED = """
import torch
from genstack.compressor.quantizers import VectorQuantizer, soft_choice
plain, compiled = (VectorQuantizer(codebook_size=11, dim=3, dead_after=4.0) for _ in range(2))
compiled.load_state_dict(plain.state_dict())
compiled.compile(backend="eager")
generator = torch.Generator().manual_seed(0)
batches = [torch.randn(2, 3, 5, 7, generator=generator) for _ in range(4)]
for quantizer in (plain, compiled):
    torch.manual_seed(0)
    for latents in batches:
        quantizer(latents)
        quantizer.after_step(skipped=False)
assert plain.codebook.initialized
assert torch.equal(plain.codebook.weight, compiled.codebook.weight)
for mode in (True, False):
    plain.train(mode), compiled.train(mode)
    torch.testing.assert_close(plain(latents).latents, compiled(latents).latents, atol=1e-6, rtol=0)
print("equal")
"""


@pytest.mark.slow
def test_compiled_training_matches(start, tmp_path):
    """In a process of its own, where shapes are not checked: the checks do not compile."""
    (tmp_path / "compiled.py").write_text(COMPILED)
    _, printed, errors = start(str(tmp_path / "compiled.py")).finish()
    assert printed.strip() == "equal", errors


@pytest.mark.parametrize("update", [GradientUpdate(), EMAUpdate()])
@pytest.mark.parametrize("normalize", [True, False])
def test_entropy_matches_a_softmax_over_distances(update, normalize, monkeypatch):
    monkeypatch.setattr(soft_choice, "CHUNK", 30)  # two latents at a time
    quantizer = plain(update=update, normalize=normalize, entropy_weight=2.0, temperature=0.4)
    latents = torch.randn(2, 3, 5, 3, requires_grad=True)
    loss = quantizer(latents).losses["entropy"]
    sides = [latents, *quantizer.parameters()]
    found = torch.autograd.grad(loss, sides)

    flat, rows = latents.movedim(1, -1).reshape(-1, 3), quantizer.codebook.weight
    if normalize:
        flat, rows = (torch.nn.functional.normalize(vectors, dim=1) for vectors in (flat, rows))
    shares = (-(flat[:, None] - rows[None]).square().sum(-1) / 0.4).softmax(1)
    certain, even = -(shares * shares.log()).sum(1).mean(), shares.mean(0)
    expected = 2.0 * (certain + (even * even.log()).sum())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, sides), atol=1e-6, rtol=1e-4)
    assert "entropy" not in plain()(latents).losses
