"""The networks that read tables and images, against torch's modules and written-out equations, forward and backward;
and what they share: activations, norms, initialisation. The recurrent ones stand in test_classic_recurrent.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import GroundupError
from groundup.models import layers
from groundup.models.convnet import Convnet, ConvnetOptions
from groundup.models.inception import Inception, InceptionOptions
from groundup.models.layers import ACTIVATIONS, GAINS, groups_of, initialise_linear, norm_1d, norm_2d
from groundup.models.linear import Linear, LinearOptions
from groundup.models.mlp import Mlp, MlpOptions
from groundup.models.resnet import CIFAR, IMAGENET, Resnet, ResnetOptions
from groundup.models.vit import Vit, VitOptions

Parameters = dict[str, Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def shaken(network: Any) -> Any:
    """Initialised, and every parameter moved, so that a bias or a scale in the wrong place shows."""
    network.initialise(generator(1))
    source = generator(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    return network


def agree(ours: nn.Module, reference: Callable[[Parameters, Tensor], Tensor], x: Tensor) -> None:
    """Outputs and all gradients, the input's too, are those of a function of the same parameters."""
    theirs = {name: p.detach().clone().requires_grad_() for name, p in ours.named_parameters()}
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(inputs[0]), reference(theirs, inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    seed = normal(*outputs[0].shape, seed=3)
    for output in outputs:
        (output * seed).sum().backward()
    pairs = {name: (p.grad, theirs[name].grad) for name, p in ours.named_parameters()} | {
        "input": (inputs[0].grad, inputs[1].grad)
    }
    for name, (our, their) in pairs.items():
        assert our is not None and their is not None, name
        atol = 1e-5 * max(1.0, float(their.abs().max()))
        torch.testing.assert_close(our, their, rtol=1e-5, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def as_module(theirs: nn.Module, ours: nn.Module) -> Callable[[Parameters, Tensor], Tensor]:
    """A torch module as a function of our parameters, which stand in the same order in it."""
    names = dict(zip((name for name, _ in theirs.named_parameters()), (name for name, _ in ours.named_parameters())))
    assert len(names) == len(list(ours.parameters())) == len(list(theirs.parameters()))
    return lambda values, x: torch.func.functional_call(theirs, {t: values[o] for t, o in names.items()}, (x,))


def batch_norm(values: Parameters, name: str, x: Tensor) -> Tensor:
    """By hand, with the statistics of the batch (Ioffe & Szegedy 2015, algorithm 1)."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    scale, shift = (values[f"{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
    return scale * (x - mean) / (variance + 1e-5).sqrt() + shift


# --- what the networks share ---------------------------------------------------------------------------------------

DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda x: torch.sigmoid(x) * (1 - torch.sigmoid(x)),
    "tanh": lambda x: 1 - torch.tanh(x) ** 2,
    "relu": lambda x: (x > 0).double(),
    "leaky_relu": lambda x: torch.where(x > 0, 1.0, torch.full_like(x, 0.01)),
    "gelu": lambda x: 0.5 * (1 + torch.erf(x / 2**0.5)) + x * torch.exp(-x * x / 2) / (2 * math.pi) ** 0.5,
    "silu": lambda x: torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x))),
    "elu": lambda x: torch.where(x > 0, 1.0, torch.exp(x)),
    "softplus": lambda x: torch.sigmoid(x),
    "identity": lambda x: torch.ones_like(x),
}


def test_activations_and_gains_are_those_that_options_name() -> None:
    assert set(ACTIVATIONS) == set(GAINS) == set(get_args(layers.Activation)) == set(DERIVATIVES)


@pytest.mark.parametrize("name", list(DERIVATIVES))
def test_activations_have_their_derivatives(name: Any) -> None:
    x = torch.tensor([-30.0, -3.0, -0.7, -0.1, 0.2, 1.1, 4.0, 30.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ACTIVATIONS[name], x)
    (slope,) = torch.autograd.grad(ACTIVATIONS[name](x).sum(), x)
    torch.testing.assert_close(slope, DERIVATIVES[name](x.detach()), rtol=1e-9, atol=1e-12)
    far = ACTIVATIONS[name](torch.tensor([-1e4, 1e4]))
    assert torch.isfinite(far).all()


def test_slope_of_relu_at_zero_is_zero() -> None:
    x = torch.zeros(1, requires_grad=True)
    ACTIVATIONS["relu"](x).sum().backward()
    assert float(x.grad) == 0.0  # type: ignore[arg-type]


def test_gains_keep_the_mean_square() -> None:
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / (2 * math.pi) ** 0.5 * (z[1] - z[0])
    for name, gain in GAINS.items():
        if name in ("sigmoid", "tanh", "relu", "leaky_relu"):
            assert gain == pytest.approx(nn.init.calculate_gain(name, 0.01))
        if name not in ("sigmoid", "tanh"):
            mean_square = float((ACTIVATIONS[name](z) ** 2 * density).sum())
            assert gain == pytest.approx(mean_square**-0.5, rel=2e-4), name


@pytest.mark.parametrize(("scheme", "low", "high"), [("he_normal", 0.85, 1.05), ("torch", 0.0175, 0.0215)])
def test_what_is_left_after_twenty_relu_layers_of_512(scheme: Any, low: float, high: float) -> None:
    network = Mlp(MlpOptions(hidden=[512] * 20, initialisation=scheme), (512,), 1)
    network.initialise(generator())
    x = normal(256, 512, seed=1)
    with torch.no_grad():
        for layer in network.layers:
            x = layer(x)
    assert low < float(x.square().mean().sqrt()) < high


THEIRS: dict[str, Callable[[Tensor], Any]] = {
    "xavier_uniform": lambda w: nn.init.xavier_uniform_(w, 2**0.5, generator=generator()),
    "xavier_normal": lambda w: nn.init.xavier_normal_(w, 2**0.5, generator=generator()),
    "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=generator()),
    "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator()),
    "orthogonal": lambda w: nn.init.orthogonal_(w, 2**0.5, generator=generator()),
    "torch": lambda w: nn.init.kaiming_uniform_(w, 5**0.5, generator=generator()),
}


@pytest.mark.parametrize("scheme", list(THEIRS))
@pytest.mark.parametrize("module", [nn.Linear(12, 20), nn.Conv2d(3, 5, 4)])
def test_initialisation_is_torchs(scheme: Any, module: Any) -> None:
    assert set(THEIRS) == set(get_args(layers.Scheme))
    initialise_linear(module, scheme, "relu", generator())
    expected = torch.empty_like(module.weight)
    THEIRS[scheme](expected)
    torch.testing.assert_close(module.weight.detach(), expected, rtol=1e-6, atol=1e-7)
    bound = module.weight[0].numel() ** -0.5
    largest = float(module.bias.detach().abs().max())
    assert bound / 2 < largest <= bound if scheme == "torch" else largest == 0.0


def test_norms_go_over_what_they_say() -> None:
    x, image = normal(6, 16), normal(6, 16, 3, 2)
    for kind, axes in (("batch", (0,)), ("layer", (1,)), ("rms", (1,))):
        mean = 0.0 if kind == "rms" else x.mean(axes, keepdim=True)
        expected = (x - mean) / ((x - mean).square().mean(axes, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(norm_1d(kind, 16)(x), expected)  # type: ignore[arg-type]
        axes = (0, 2, 3) if kind == "batch" else (1, 2, 3)
        mean = 0.0 if kind == "rms" else image.mean(axes, keepdim=True)
        expected = (image - mean) / ((image - mean).square().mean(axes, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(norm_2d(kind, 16)(image), expected)  # type: ignore[arg-type]
    for y in (norm_1d("group", 16)(x), norm_2d("group", 16)(image)):
        parts = y.reshape(6, 4, -1)  # 16 features make 4 groups of 4
        torch.testing.assert_close(parts.mean(dim=2), torch.zeros(6, 4), atol=1e-5, rtol=0.0)
        torch.testing.assert_close(parts.var(dim=2, correction=0), torch.ones(6, 4), atol=1e-3, rtol=0.0)
    assert torch.equal(norm_1d("none", 16)(x), x) and torch.equal(norm_2d("none", 16)(image), image)
    assert [groups_of(n) for n in (3, 16, 20, 128, 512)] == [1, 4, 5, 32, 32]


def test_batch_norm_of_one_row_is_an_error_in_training_alone() -> None:
    network = Mlp(MlpOptions(norm="batch"), (3,), 2)
    network.initialise(generator())
    with pytest.raises(GroundupError, match="1 row") as caught:
        network(normal(1, 3))
    assert caught.value.code == "E-MODEL-101"
    assert torch.isfinite(network.eval()(normal(1, 3))).all()


# --- the networks ---------------------------------------------------------------------------------------------------


def test_linear_is_zero_at_first_and_one_matrix() -> None:
    ours = Linear(LinearOptions(), (2, 3), 4)
    ours.initialise(generator())
    assert all(bool((p == 0).all()) for p in ours.parameters()) and len(list(ours.parameters())) == 2
    agree(shaken(ours), lambda p, x: x.reshape(5, 6) @ p["head.weight"].T + p["head.bias"], normal(5, 2, 3))
    assert [n for n, _ in Linear(LinearOptions(bias=False), (3,), 1).named_parameters()] == ["head.weight"]


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", "rms"])
@pytest.mark.parametrize("bias", [True, False])
def test_mlp_equals_torchs_modules(norm: Any, bias: bool) -> None:
    ours = shaken(Mlp(MlpOptions(hidden=[16, 8], activation="silu", norm=norm, bias=bias), (2, 3, 3), 4))
    norms: dict[str, Callable[[int], nn.Module]] = {
        "none": lambda n: nn.Identity(), "batch": nn.BatchNorm1d, "layer": nn.LayerNorm,
        "group": lambda n: nn.GroupNorm(n // 4, n), "rms": lambda n: nn.RMSNorm(n, eps=1e-5),
    }  # fmt: skip
    parts: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((18, 16), (16, 8)):
        parts += [nn.Linear(inputs, outputs, bias=bias), norms[norm](outputs), nn.SiLU()]
    agree(ours, as_module(nn.Sequential(*parts, nn.Linear(8, 4, bias=bias)), ours), normal(7, 2, 3, 3))


@pytest.mark.parametrize("padding", ["same", "none"])
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_convnet_equals_torchs_modules(padding: Any, pooling: Any) -> None:
    options = ConvnetOptions(
        channels=[4, 6], kernel=3, padding=padding, pooling=pooling, hidden=[8], activation="tanh", dropout=0.0
    )
    ours = shaken(Convnet(options, (2, 11, 10), 3))
    pool, margin = nn.MaxPool2d if pooling == "max" else nn.AvgPool2d, 1 if padding == "same" else 0
    parts: list[nn.Module] = []
    for inputs, outputs in ((2, 4), (4, 6)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=margin, bias=False), nn.BatchNorm2d(outputs), nn.Tanh()]
        parts += [pool(2)]
    dense = 6 * 2 * 2 if padding == "same" else 6 * 1 * 1
    parts += [nn.Flatten(), nn.Linear(dense, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)]
    agree(ours, as_module(nn.Sequential(*parts), ours), normal(5, 2, 11, 10))


def test_convnet_can_be_lenet() -> None:
    options = ConvnetOptions(
        channels=[6, 16], padding="none", pooling="average", hidden=[120, 84], activation="tanh", norm="none"
    )
    # LeNet-5 with all maps of its third layer connected
    assert sum(p.numel() for p in Convnet(options, (1, 32, 32), 10).parameters()) == 61_706


def resnet_by_hand(layout: str, depth: int) -> Callable[[Parameters, Tensor], Tensor]:
    """He et al. 2015, figures 2 and 5, as functions."""
    counts = ((depth - 2) // 6,) * 3 if layout == "cifar" else IMAGENET[depth]
    kernels = (1, 3, 1) if depth >= 50 and layout == "imagenet" else (3, 3)

    def forward(p: Parameters, x: Tensor) -> Tensor:
        stride, margin = (1, 1) if layout == "cifar" else (2, 3)
        x = batch_norm(p, "bn1", F.conv2d(x, p["conv1.weight"], stride=stride, padding=margin)).relu()
        if layout == "imagenet":
            x = F.max_pool2d(x, 3, 2, 1)
        for stage, count in enumerate(counts, start=1):
            for block in range(count):
                name = f"layer{stage}.{block}"
                step = 2 if stage > 1 and block == 0 else 1
                inner = x
                for index, kernel in enumerate(kernels, start=1):
                    stride = step if index == (2 if len(kernels) == 3 else 1) else 1
                    inner = F.conv2d(inner, p[f"{name}.conv{index}.weight"], stride=stride, padding=kernel // 2)
                    inner = batch_norm(p, f"{name}.bn{index}", inner)
                    inner = inner.relu() if index < len(kernels) else inner
                if f"{name}.downsample.0.weight" in p:
                    x = F.conv2d(x, p[f"{name}.downsample.0.weight"], stride=step)
                    x = batch_norm(p, f"{name}.downsample.1", x)
                x = (inner + x).relu()
        return x.mean(dim=(2, 3)) @ p["head.weight"].T + p["head.bias"]

    return forward


@pytest.mark.parametrize(("layout", "depth"), [("cifar", 8), ("cifar", 14), ("imagenet", 18), ("imagenet", 50)])
def test_resnet_equals_the_equations(layout: Any, depth: int) -> None:
    ours = shaken(Resnet(ResnetOptions(layout=layout, depth=depth, width=3), (2, 33, 34), 5)).double()
    agree(ours, resnet_by_hand(layout, depth), normal(3, 2, 33, 34).double())


def published(depth: int) -> list[str]:
    """The parameters' names in torchvision's weights, with `fc` called `head`."""
    names = ["conv1.weight", "bn1.weight", "bn1.bias"]
    for stage, count in enumerate(IMAGENET[depth], start=1):
        for block in range(count):
            parts = [f"layer{stage}.{block}.{kind}{i}" for i in range(1, 3 + (depth >= 50)) for kind in ("conv", "bn")]
            if block == 0 and (stage > 1 or depth >= 50):
                parts += [f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1"]
            for part in parts:
                is_conv = ".conv" in part or part.endswith("downsample.0")
                names += [f"{part}.weight"] if is_conv else [f"{part}.weight", f"{part}.bias"]
    return [*names, "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
)
def test_resnet_has_the_published_layout(depth: int, count: int) -> None:
    with torch.device("meta"):
        ours = Resnet(ResnetOptions(layout="imagenet", depth=depth), (3, 224, 224), 1000)
    shapes = {name: tuple(p.shape) for name, p in ours.named_parameters()}
    assert list(shapes) == published(depth)
    assert sum(math.prod(shape) for shape in shapes.values()) == count
    assert shapes["layer2.0.downsample.0.weight"] == ((512, 256, 1, 1) if depth >= 50 else (128, 64, 1, 1))


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_names_and_shapes_equal_torchvisions(depth: int) -> None:
    try:
        from torchvision.models import resnet as theirs
    except (ImportError, RuntimeError) as fault:
        pytest.skip(f"torchvision does not import: {fault}")
    with torch.device("meta"):
        ours = Resnet(ResnetOptions(layout="imagenet", depth=depth), (3, 224, 224), 1000).state_dict()
        expected = (theirs.resnet18() if depth == 18 else theirs.resnet50()).state_dict()
    shapes = {name.replace("fc.", "head."): value.shape for name, value in expected.items()}
    assert {name: value.shape for name, value in ours.items()} == shapes


@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_layout_has_as_many_layers_as_it_says(depth: int) -> None:
    with torch.device("meta"):
        ours = Resnet(ResnetOptions(depth=depth), (3, 32, 32), 10)
    weighted = [n for n, p in ours.named_parameters() if p.dim() > 1 and "downsample" not in n]
    assert len(weighted) == depth
    if depth == 20:  # the paper's .27 million, and two projections
        assert sum(p.numel() for p in ours.parameters()) == 272_474


def test_residual_blocks_begin_as_the_identity() -> None:
    for zero in (True, False):
        ours = Resnet(ResnetOptions(depth=8, width=4, zero_last_norm=zero), (1, 8, 8), 2)
        ours.initialise(generator())
        x = normal(2, 4, 8, 8).relu()
        assert torch.equal(ours.layer1[0](x), x) == zero


def test_inception_equals_the_equations() -> None:
    ours = shaken(Inception(InceptionOptions(stem=5, channels=[16, 32], modules=2), (2, 9, 8), 3))

    def conv(p: Parameters, name: str, x: Tensor) -> Tensor:
        weight = p[f"{name}.conv.weight"]
        return batch_norm(p, f"{name}.norm", F.conv2d(x, weight, padding=weight.shape[-1] // 2)).relu()

    def forward(p: Parameters, x: Tensor) -> Tensor:
        x = conv(p, "stem", x)
        for layer in range(4):
            x = F.max_pool2d(x, 2) if layer == 2 else x
            name = f"layers.{layer}"
            three, five = (conv(p, f"{name}.{b}.1", conv(p, f"{name}.{b}.0", x)) for b in ("three", "five"))
            pooled = conv(p, f"{name}.pool.1", F.max_pool2d(x, 3, 1, 1))
            x = torch.cat([conv(p, f"{name}.one", x), three, five, pooled], dim=1)
        return x.mean(dim=(2, 3)) @ p["head.weight"].T + p["head.bias"]

    agree(ours, forward, normal(4, 2, 9, 8))
    shapes = {
        n: tuple(p.shape) for n, p in Inception(InceptionOptions(channels=[256]), (3, 8, 8), 2).named_parameters()
    }
    sizes = {"one.conv": 64, "three.0.conv": 96, "three.1.conv": 128, "five.0.conv": 16, "five.1.conv": 32,
             "pool.1.conv": 32}  # fmt: skip
    assert {name: shapes[f"layers.0.{name}.weight"][0] for name in sizes} == sizes  # GoogLeNet's module 3a


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_vit_equals_torchs_encoder(pooling: Any) -> None:
    ours = shaken(Vit(VitOptions(patch=4, width=12, layers=2, heads=3, hidden=20, pooling=pooling), (2, 12, 8), 5))
    their_layer = nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": "attention.qkv_proj.", "self_attn.out_proj.": "attention.o_proj.", "linear1.": "up_proj.",
        "linear2.": "down_proj.", "norm1.": "attention_norm.", "norm2.": "feed_forward_norm.",
    }  # fmt: skip

    def forward(p: Parameters, x: Tensor) -> Tensor:
        patches = x.reshape(3, 2, 3, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(3, 6, 32)
        x = patches @ p["patch_proj.weight"].reshape(12, 32).T + p["patch_proj.bias"]
        if pooling == "class":
            x = torch.cat([p["class_embedding"].expand(3, 1, 12), x], dim=1)
        x = x + p["position_embedding"]
        for layer in range(2):
            values = {}
            for theirs, mine in names.items():
                for kind in ("weight", "bias"):
                    values[theirs + kind] = p[f"layers.{layer}.{mine}{kind}"]
            x = torch.func.functional_call(their_layer, values, (x,))
        x = F.layer_norm(x, (12,), p["norm.weight"], p["norm.bias"], 1e-6)
        x = x[:, 0] if pooling == "class" else x.mean(dim=1)
        return x @ p["head.weight"].T + p["head.bias"]

    agree(ours, forward, normal(3, 2, 12, 8))
