"""Networks that draw small images: their shapes and draws, and the losses of autoencoder, variational autoencoder and
both players of a game, against torch's distributions, sums made by hand, and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn import functional as F

from groundup.errors import GroundupError
from groundup.evaluation.generated import class_coverage, likelihood_bounds
from groundup.models.autoencoder import Autoencoder, AutoencoderOptions
from groundup.models.gan import Gan, GanOptions
from groundup.models.vae import Vae, VaeOptions
from groundup.objectives import reconstruct
from groundup.objectives.adversarial import Adversarial, AdversarialOptions, relative_spread
from groundup.objectives.reconstruct import (
    Elbo,
    Reconstruct,
    ReconstructOptions,
    binarised,
    gaussian_divergence,
)

Network = Autoencoder | Vae | Gan


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(network: Any, seed: int = 0) -> Any:
    network.initialise(generator(seed))
    return network


def images(rows: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.rand(rows, *(shape or (1, 8, 8)), generator=generator(seed))


def quiet(kind: str, step: int, detail: dict[str, Any]) -> None:
    raise AssertionError(f"{kind} at {step}: {detail}")


def toy_gan(**options: Any) -> Gan:
    return drawn(Gan(GanOptions(widths=[8, 4], latent=6, **options), (1, 8, 8), 3))


NETWORKS: dict[str, Any] = {
    "dense autoencoder": lambda shape: Autoencoder(AutoencoderOptions(kind="dense", widths=[20, 12]), shape),
    "convolutional autoencoder": lambda shape: Autoencoder(AutoencoderOptions(widths=[4, 6], latent=5), shape),
    "vae": lambda shape: Vae(VaeOptions(hidden=[20, 12], latent=3), shape),
    "dense gan": lambda shape: Gan(GanOptions(kind="dense", widths=[12, 20], conditional=True), shape, 3),
    "convolutional gan": lambda shape: Gan(GanOptions(widths=[6, 4], critic_norm="batch"), shape),
}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 12, 20)])
@pytest.mark.parametrize("name", NETWORKS)
def test_images_keep_their_shape(name: str, shape: tuple[int, int, int]) -> None:
    network: Network = drawn(NETWORKS[name](shape))
    real = images(4, *shape)
    if isinstance(network, Gan):
        made = network.sample(4, generator())
        label = torch.tensor([0, 1, 2, 0]) if network.conditional else None
        assert network.critic(made, label).shape == (4,)
    else:
        made = network(real)
    assert made.shape == real.shape
    assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_initialise_sets_everything_and_nothing_else_matters(name: str) -> None:
    first, second = (drawn(NETWORKS[name]((1, 8, 8)), seed=4) for _ in range(2))
    for tensor in second.state_dict().values():
        tensor.fill_(7)
    drawn(second, seed=4)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    other = drawn(NETWORKS[name]((1, 8, 8)), seed=5)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@torch.no_grad()
def test_draws_keep_the_size_of_what_goes_through() -> None:
    network = drawn(Autoencoder(AutoencoderOptions(widths=[64, 64], latent=256), (1, 32, 32)))
    # Away from the border, the mean square before each rectifier is twice that after the one before it.
    x = torch.randn(8, 256, generator=generator(2))
    for module in network.decoder:
        y = module(x)
        if isinstance(module, nn.ConvTranspose2d):
            inner = y[:, :, 2:-2, 2:-2]
            assert inner.square().mean() == pytest.approx(2 * float(x.square().mean()), rel=0.25)
        x = y


@pytest.mark.parametrize(
    ("make", "code", "number"),
    [
        (lambda: Autoencoder(AutoencoderOptions(), (16,)), "E-MODEL-140", "[16]"),
        (lambda: Vae(VaeOptions(), (7, 3)), "E-MODEL-140", "[7, 3]"),
        (lambda: Gan(GanOptions(), (1, 2, 3, 4)), "E-MODEL-140", "[1, 2, 3, 4]"),
        (lambda: Autoencoder(AutoencoderOptions(widths=[4, 4, 4]), (1, 28, 28)), "E-MODEL-141", "at most 2"),
        (lambda: Gan(GanOptions(), (1, 30, 28)), "E-MODEL-141", "at most 1"),
        (lambda: Gan(GanOptions(), (1, 27, 28)), "E-MODEL-141", "dense"),
        (lambda: Gan(GanOptions(widths=[4, 4]), (1, 4, 4)), "E-MODEL-141", "at most 1"),
        (lambda: Gan(GanOptions(conditional=True), (1, 8, 8), 1), "E-MODEL-142", "1"),
        (lambda: toy_gan(conditional=True).sample(2, generator(), 3), "E-MODEL-143", "label 3"),
        (lambda: toy_gan().sample(2, generator(), 0), "E-MODEL-143", "no labels"),
    ],
)
def test_bad_sizes_are_errors_of_five_parts(make: Any, code: str, number: str) -> None:
    with pytest.raises(GroundupError) as caught:
        make()
    error = caught.value
    assert error.code == code
    assert all((error.what, error.where, error.why, error.fix))
    assert number in str(error)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GanOptions(kind="dense", critic_norm="batch"),
        lambda: AutoencoderOptions(widths=[]),
        lambda: VaeOptions(hidden=[0]),
        lambda: AdversarialOptions(loss="hinge", label_smoothing=0.1),
        lambda: AdversarialOptions(loss="wasserstein_gp", r1=1.0),
        lambda: AdversarialOptions(loss="hinge", gradient_penalty=10.0),
    ],
)
def test_options_that_would_do_nothing_are_refused(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()


# reconstruction


def test_reconstruction_is_the_sum_over_rows_and_ends_where_the_image_does() -> None:
    network = drawn(Autoencoder(AutoencoderOptions(kind="dense", widths=[16], latent=4), (1, 8, 8)))
    image = images(5)
    made = network(image)
    squared = Reconstruct(ReconstructOptions(), network)
    entropy = Reconstruct(ReconstructOptions(loss="binary_cross_entropy"), network)
    whole = squared.loss("model", {"image_BCHW": image})
    parts = [squared.loss("model", {"image_BCHW": part}).total for part in image.split(2)]
    assert whole.total.item() == pytest.approx(F.mse_loss(made, image, reduction="sum").item(), rel=1e-5)
    assert sum(part.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-5)
    assert float(squared.weight("model", {"image_BCHW": image})) == 5 == int(whole.metrics["rows"])
    expected = F.binary_cross_entropy(made, image, reduction="sum").item()
    assert entropy.loss("model", {"image_BCHW": image}).total.item() == pytest.approx(expected, rel=1e-5)


def test_denoising_sees_noise_in_training_alone_and_repeats_with_the_global_state() -> None:
    network = drawn(Autoencoder(AutoencoderOptions(kind="dense", widths=[16], latent=4), (1, 8, 8)))
    batch = {"image_BCHW": images(5)}
    clean = Reconstruct(ReconstructOptions(), network).loss("model", batch).total
    noisy = Reconstruct(ReconstructOptions(noise=0.5), network)
    state = torch.get_rng_state()
    first = noisy.loss("model", batch).total
    assert first != clean
    assert noisy.loss("model", batch).total != first
    torch.set_rng_state(state)
    assert noisy.loss("model", batch).total == first
    network.eval()
    state = torch.get_rng_state()
    assert noisy.loss("model", batch).total == clean
    assert torch.equal(torch.get_rng_state(), state)


def test_an_autoencoder_learns_images_of_few_degrees_of_freedom() -> None:
    torch.manual_seed(0)
    network = drawn(Autoencoder(AutoencoderOptions(kind="dense", widths=[32], latent=4), (1, 8, 8)))
    line = torch.arange(8)
    image = torch.stack([(line == row).float()[:, None].expand(8, 8) for row in range(8)])[:, None]
    objective = Reconstruct(ReconstructOptions(loss="binary_cross_entropy"), network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        objective.loss("model", {"image_BCHW": image}).total.backward()
        optimizer.step()
    assert ((network(image) > 0.5).float() == image).float().mean() > 0.99


# the evidence lower bound


def test_divergence_is_torchs() -> None:
    mean, log_variance = torch.randn(2, 6, 4, generator=generator(3))
    own = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(own, Normal(torch.zeros(4), torch.ones(4))).sum(dim=1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)


def toy_vae() -> Vae:
    return drawn(Vae(VaeOptions(hidden=[24], latent=2), (1, 4, 4)))


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_the_loss_is_the_bound_by_monte_carlo(beta: float) -> None:
    torch.manual_seed(0)
    network, image = toy_vae(), (images(3, 1, 4, 4) > 0.5).float()
    objective = Elbo(reconstruct.VaeOptions(beta=beta, binarise="none"), network)
    losses = [objective.loss("model", {"image_BCHW": image.repeat(500, 1, 1, 1)}) for _ in range(4)]
    mean, log_variance = network.encode(image)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    latent = posterior.sample((2000,))
    seen = Independent(Bernoulli(logits=network.decode(latent.flatten(0, 1)).view(2000, 3, 16)), 1)
    likelihood = seen.log_prob(image.flatten(1))
    divergence = (posterior.log_prob(latent) - Normal(0.0, 1.0).log_prob(latent)).sum(dim=2)
    expected = float((beta * divergence - likelihood).mean(dim=0).sum())
    assert sum(float(loss.total) for loss in losses) / 2000 == pytest.approx(expected, rel=0.02)
    parts = losses[0].metrics
    assert float(losses[0].total) == pytest.approx(float(parts["reconstruction"] + beta * parts["divergence"]))
    assert float(objective.weight("model", {"image_BCHW": image})) == 3


def test_binarisation() -> None:
    image = torch.tensor([0.0, 0.5, 0.51, 1.0, math.nan]).expand(4000, 1, 1, 5)
    threshold = binarised(image, "threshold")[0, 0, 0]
    assert threshold[:4].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert threshold[4].isnan()
    dynamic = binarised(image, "dynamic", generator())[:, 0, 0]
    assert set(dynamic[:, :4].flatten().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(dynamic[:, :4].mean(dim=0), image[0, 0, 0, :4], atol=0.03, rtol=0)
    assert dynamic[:, 4].isnan().all()
    assert binarised(image, "none") is image


def test_measuring_a_vae_draws_nothing_from_the_global_generator() -> None:
    network, batch = toy_vae().eval(), {"image_BCHW": images(3, 1, 4, 4)}
    objective = Elbo(reconstruct.VaeOptions(), network)
    state = torch.get_rng_state()
    assert objective.loss("model", batch).total == objective.loss("model", batch).total
    assert torch.equal(torch.get_rng_state(), state)
    network.train()
    assert objective.loss("model", batch).total != objective.loss("model", batch).total


def test_pixels_outside_zero_to_one_are_refused_and_no_numbers_are_left_to_the_guard() -> None:
    objective = Elbo(reconstruct.VaeOptions(), toy_vae())
    image = images(2, 1, 4, 4)
    with pytest.raises(GroundupError, match=r"from -0.5 to 1.5") as caught:
        objective.loss("model", {"image_BCHW": (4 * image - 1.5).clamp(-0.5, 1.5)})
    assert caught.value.code == "E-RUN-060"
    image[0, 0, 0, 0] = math.nan
    assert objective.loss("model", {"image_BCHW": image}).total.isnan()


def linear_gaussian() -> tuple[Any, Any, Tensor]:
    """A VAE of one latent whose posterior is too wide on purpose, so that the bounds have something to gain."""
    weight = torch.linspace(-3, 3, 9).view(1, 9)

    def encode(image: Tensor) -> tuple[Tensor, Tensor]:
        mean = 0.3 * image.flatten(1) @ weight.T
        return mean, torch.full_like(mean, 0.5)

    def decode(latent: Tensor) -> Tensor:
        return (latent @ weight).view(-1, 1, 3, 3)

    return encode, decode, (images(40, 1, 3, 3) > 0.5).float()


def exact_negative_log_likelihood(decode: Any, image: Tensor) -> Tensor:
    """-log p(x) by the trapezium rule over the latent."""
    latent = torch.linspace(-8, 8, 4001).view(-1, 1)
    logits = decode(latent).flatten(1)
    likelihood = -F.binary_cross_entropy_with_logits(
        logits[:, None].expand(-1, len(image), -1), image.flatten(1).expand(4001, -1, -1), reduction="none"
    ).sum(dim=2)
    joint = likelihood.double() + Normal(0.0, 1.0).log_prob(latent).double()
    return -torch.logsumexp(joint + math.log(16 / 4000), dim=0)


def test_importance_bound_tightens_with_samples_and_never_passes_the_likelihood() -> None:
    encode, decode, image = linear_gaussian()
    exact = float(exact_negative_log_likelihood(decode, image).mean())
    bounds = {
        k: likelihood_bounds(encode, decode, image, samples=k, generator=generator()).importance_N.mean()
        for k in (1, 5, 50, 2000)
    }
    elbo = likelihood_bounds(encode, decode, image, samples=2000, generator=generator(1)).negative_elbo_N.mean()
    assert elbo > bounds[5] > bounds[50] > bounds[2000]
    assert bounds[1] == pytest.approx(elbo, abs=0.8)
    assert bounds[2000] == pytest.approx(exact, abs=0.01)
    assert elbo > exact + 0.5


def test_bounds_agree_with_the_loss_and_are_refused_where_not_finite() -> None:
    network, image = toy_vae().eval(), (images(6, 1, 4, 4) > 0.5).float()
    bounds = likelihood_bounds(network.encode, network.decode, image, samples=3000, generator=generator())
    objective = Elbo(reconstruct.VaeOptions(binarise="threshold"), network)
    repeated = objective.loss("model", {"image_BCHW": image.repeat(3000, 1, 1, 1)}).total
    assert bounds.negative_elbo_N.sum() == pytest.approx(float(repeated) / 3000, rel=0.01)
    assert bounds.importance_N.mean() <= bounds.negative_elbo_N.mean()
    with torch.no_grad():
        network.head.bias[0] = math.nan
    with pytest.raises(GroundupError, match="6 of 6") as caught:
        likelihood_bounds(network.encode, network.decode, image, samples=2, generator=generator())
    assert caught.value.code == "E-EVAL-045"


def test_vae_samples_depend_on_the_generator_alone() -> None:
    network = drawn(Vae(VaeOptions(hidden=[8], latent=2, dropout=0.5), (1, 4, 4)))
    first = network.sample(3, generator(7))
    torch.manual_seed(99)
    assert torch.equal(network.sample(3, generator(7)), first)
    assert not torch.equal(network.sample(3, generator(8)), first)
    assert network.training


# the game of two

LOSSES: list[dict[str, Any]] = [
    {"loss": "non_saturating", "label_smoothing": 0.1},
    {"loss": "non_saturating", "r1": 2.0},
    {"loss": "hinge"},
    {"loss": "hinge", "r1": 0.5},
    {"loss": "wasserstein_gp", "critic_steps": 3},
]


@pytest.mark.parametrize("rules", LOSSES)
@pytest.mark.parametrize("conditional", [False, True])
def test_each_turn_leaves_no_gradient_on_the_other_player(rules: dict[str, Any], conditional: bool) -> None:
    network = toy_gan(conditional=conditional)
    objective = Adversarial(AdversarialOptions(**rules), network, quiet)
    assert objective.turns == ("critic",) * rules.get("critic_steps", 1) + ("generator",)
    batch = {"image_BCHW": images(4), "label_B": torch.tensor([0, 1, 2, 2])}
    players = {"critic": network.critic, "generator": network.generator}
    for turn, other in (("critic", "generator"), ("generator", "critic")):
        network.zero_grad()
        loss = objective.loss(turn, batch)
        assert all(parameter.requires_grad for parameter in network.parameters())
        loss.total.backward()
        assert all(parameter.grad is None for parameter in players[other].parameters())
        without = [name for name, parameter in players[turn].named_parameters() if parameter.grad is None]
        # the bias of a Wasserstein critic's head cancels, which is a gradient of zero, not none
        assert not without
        assert int(loss.metrics["rows"]) == 4 == int(objective.weight(turn, batch))


def test_frozen_parameters_of_the_critic_stay_frozen() -> None:
    network = toy_gan()
    network.critic.head.weight.requires_grad_(False)
    objective = Adversarial(AdversarialOptions(), network, quiet)
    objective.loss("generator", {"image_BCHW": images(4)})
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["critic.head.weight"]


class Quadratic(nn.Module):
    """A critic whose gradient is known: score = a · |x|², gradient 2 a x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7))

    def forward(self, image_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        return self.a * image_BCHW.flatten(1).square().sum(dim=1)


class Constant(nn.Module):
    """A generator of one image, which noise moves a little."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.full((1, 4, 4), 0.25))

    def forward(self, noise_BZ: Tensor, label_B: Tensor | None = None) -> Tensor:
        return self.image + 0.0 * noise_BZ[:, :1, None, None]


class Toy(nn.Module):
    """Both players of a game that can be reckoned by hand."""

    latent, conditional = 2, False

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = Constant(), Quadratic()


@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
def test_r1_is_half_the_squared_slope_at_real_images(loss: Any) -> None:
    network, real = Toy(), images(5, 1, 4, 4)
    batch = {"image_BCHW": real}
    plain = Adversarial(AdversarialOptions(loss=loss), network, quiet).loss("critic", batch)
    network.zero_grad()
    penalised = Adversarial(AdversarialOptions(loss=loss, r1=3.0), network, quiet).loss("critic", batch)
    length = float(real.square().sum())
    expected = 0.5 * 3.0 * 4 * 0.7**2 * length
    assert float(penalised.total - plain.total) == pytest.approx(expected, rel=1e-4)
    assert float(penalised.metrics["penalty"]) == pytest.approx(expected, rel=1e-4)
    (slope,) = torch.autograd.grad(penalised.total - plain.total, network.critic.a)
    assert float(slope) == pytest.approx(0.5 * 3.0 * 8 * 0.7 * length, rel=1e-4)


def test_gradient_penalty_equals_the_one_by_hand() -> None:
    network, real = Toy(), images(5, 1, 4, 4)
    objective = Adversarial(AdversarialOptions(loss="wasserstein_gp", gradient_penalty=4.0), network, quiet)
    torch.manual_seed(5)
    loss = objective.loss("critic", {"image_BCHW": real})
    torch.manual_seed(5)
    torch.randn(5, 2)
    between = torch.lerp(real, torch.full_like(real, 0.25), torch.rand(5, 1, 1, 1))
    norm = 2 * 0.7 * between.flatten(1).norm(dim=1)
    penalty = 4.0 * (norm - 1).square().sum()
    distance = 0.7 * (5 * 16 * 0.25**2 - float(real.square().sum()))
    assert float(loss.metrics["penalty"]) == pytest.approx(float(penalty), rel=1e-4)
    assert float(loss.total) == pytest.approx(distance + float(penalty), rel=1e-4)
    loss.total.backward()
    by_hand = distance / 0.7 + 4.0 * float((2 * (norm - 1) * norm / 0.7).sum())
    assert float(network.critic.a.grad) == pytest.approx(by_hand, rel=1e-3)


def test_losses_are_those_of_their_papers() -> None:
    network, real = Toy(), images(5, 1, 4, 4)
    real_score = 0.7 * real.flatten(1).square().sum(dim=1)
    fake_score = torch.full((5,), 0.7 * 16 * 0.25**2)
    batch = {"image_BCHW": real}

    def totals(**rules: Any) -> tuple[float, float]:
        objective = Adversarial(AdversarialOptions(**rules), network, quiet)
        return float(objective.loss("critic", batch).total), float(objective.loss("generator", batch).total)

    judged = (0.9 * real_score.sigmoid().log() + 0.1 * (1 - real_score.sigmoid()).log()).sum()
    expected = -judged - (1 - fake_score.sigmoid()).log().sum()
    smooth = totals(label_smoothing=0.1)
    assert smooth == pytest.approx((float(expected), -float(fake_score.sigmoid().log().sum())), rel=1e-4)
    hinge = (1 - real_score).clamp_min(0).sum() + (1 + fake_score).sum()
    assert totals(loss="hinge") == pytest.approx((float(hinge), -float(fake_score.sum())), rel=1e-4)


def test_a_gradient_penalty_and_batch_normalisation_in_the_critic_are_refused() -> None:
    network = toy_gan(critic_norm="batch")
    Adversarial(AdversarialOptions(), network, quiet)
    for rules in ({"r1": 1.0}, {"loss": "wasserstein_gp"}):
        with pytest.raises(GroundupError, match="critic_norm: none") as caught:
            Adversarial(AdversarialOptions(**rules), network, quiet)
        assert caught.value.code == "E-RUN-061"


@pytest.mark.parametrize("labels", [{}, {"label_B": torch.tensor([0, -100, 1, 2])}])
def test_a_conditional_game_needs_labels(labels: dict[str, Tensor]) -> None:
    objective = Adversarial(AdversarialOptions(), toy_gan(conditional=True), quiet)
    with pytest.raises(GroundupError, match=f"{1 if labels else 4} of 4 rows") as caught:
        objective.loss("critic", {"image_BCHW": images(4)} | labels)
    assert caught.value.code == "E-RUN-062"


def test_labels_choose_what_is_drawn() -> None:
    network = toy_gan(conditional=True)
    in_turn = network.sample(6, generator(2))
    chosen = network.sample(6, generator(2), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert torch.equal(in_turn, chosen)
    assert not torch.equal(network.sample(6, generator(2), 1), chosen)
    label = torch.tensor([0, 0, 0, 0])
    image = images(4)
    assert not torch.equal(network.critic(image, label), network.critic(image, label + 1))


def test_collapse_is_counted_over_a_checkpoint_and_warned_of_once() -> None:
    heard: list[tuple[str, int, dict[str, Any]]] = []
    rules = AdversarialOptions(collapse_steps=4)
    batch = {"image_BCHW": images(6, 1, 4, 4)}

    def objective() -> Adversarial:
        return Adversarial(rules, Toy(), lambda *event: heard.append(event))

    first, second = objective(), objective()
    for step in (1, 2, 3):
        first.loss("generator", batch)
        first.after_step(step)
    assert first.state_dict() == {"narrow_steps": 3}
    assert heard == []
    second.load_state_dict(first.state_dict())
    for step in (4, 5):
        metrics = second.loss("generator", batch).metrics
        second.after_step(step)
    assert float(metrics["spread"]) == pytest.approx(0.0, abs=1e-5)
    assert [(kind, step) for kind, step, _ in heard] == [("collapse", 4)]
    assert heard[0][2]["steps"] == 4
    assert second.state_dict() == {"narrow_steps": 5}


def test_a_healthy_spread_starts_the_count_anew() -> None:
    network = toy_gan()
    objective = Adversarial(AdversarialOptions(collapse_spread=0.01, collapse_steps=4), network, quiet)
    objective.load_state_dict({"narrow_steps": 3})
    objective.loss("generator", {"image_BCHW": images(6)})
    objective.after_step(4)
    assert objective.state_dict() == {"narrow_steps": 0}


def test_spread_looks_within_labels() -> None:
    real = images(40, seed=3)
    label = torch.arange(40) % 4
    assert float(relative_spread(real.flip(0), real, None)) == pytest.approx(1.0)
    assert float(relative_spread(0.5 * real, real, None)) == pytest.approx(0.5, rel=1e-5)
    one_each = real[:4][label]
    assert float(relative_spread(one_each, real, None)) > 0.5
    assert float(relative_spread(one_each, real, label)) == pytest.approx(0.0, abs=1e-4)
    assert float(relative_spread(real, torch.full_like(real, 0.5), None)) == 1.0


TINY_GAMES: list[tuple[dict[str, Any], float]] = [
    ({"r1": 1.0}, 1e-2),
    ({"loss": "hinge", "r1": 1.0}, 1e-2),
    ({"loss": "wasserstein_gp", "gradient_penalty": 1.0, "critic_steps": 2}, 2e-3),
]


@pytest.mark.parametrize(("rules", "rate"), TINY_GAMES)
def test_a_tiny_game_moves_the_mean_to_that_of_the_data(rules: dict[str, Any], rate: float) -> None:
    torch.manual_seed(1)
    network = drawn(Gan(GanOptions(kind="dense", widths=[16], latent=4), (1, 2, 2)))
    mean = torch.tensor([0.2, 0.8, 0.6, 0.3]).view(1, 2, 2)
    objective = Adversarial(AdversarialOptions(**rules), network, quiet)
    optimizers = {
        "critic": torch.optim.Adam(network.critic.parameters(), lr=1e-2, betas=(0.0, 0.9)),
        "generator": torch.optim.Adam(network.generator.parameters(), lr=rate, betas=(0.0, 0.9)),
    }
    before = (network.sample(500, generator()).mean(dim=0) - mean).abs().max()
    for step in range(150 if rate < 1e-2 else 100):
        for turn in objective.turns:
            real = (mean + 0.1 * torch.randn(64, 1, 2, 2)).clamp(0, 1)
            (objective.loss(turn, {"image_BCHW": real}).total / 64).backward()
            optimizers[turn].step()
            optimizers[turn].zero_grad()
        objective.after_step(step)
    made = network.sample(500, generator())
    assert before > 0.2
    assert (made.mean(dim=0) - mean).abs().max() < 0.1


# what was generated


def test_coverage_counts_the_classes_that_a_sure_classifier_sees() -> None:
    image = torch.zeros(100, 1, 1, 1)
    image[:60], image[60:99], image[99:] = 0, 1, 2

    def classify(x: Tensor) -> Tensor:
        return F.one_hot(x.flatten().long(), 4).float() * 8

    found = class_coverage(classify, image)
    assert found.count_L == [60, 39, 1, 0]
    assert found.covered == 2  # one image of a hundred is less than a tenth of an even share of four
    assert class_coverage(classify, image, least_share=0.0).covered == 3
    share = torch.tensor([0.6, 0.39, 0.01])
    assert found.evenness == pytest.approx(float(-(share * share.log()).sum() / math.log(4)), rel=1e-6)
    assert found.confident == 1.0
    unsure = class_coverage(lambda x: classify(x) / 8, image)
    assert (unsure.covered, unsure.confident) == (0, 0.0)
    assert unsure.confidence == pytest.approx(math.e / (math.e + 3))


def test_images_that_are_not_finite_are_named() -> None:
    image = images(5)
    image[3, 0, 0, 0] = math.inf
    with pytest.raises(GroundupError, match="1 of 5") as caught:
        class_coverage(lambda x: x.flatten(1), image)
    assert caught.value.code == "E-EVAL-046"
    assert "image 3" in caught.value.where
