"""Every field that recipes of rows have does something: each leaf is flipped, and the run that is built must differ.

The leaves are read from the types themselves, so that none is forgotten. What is compared is the run as it is built and
as it goes: its steps and rates, first batches, weights before and after, evaluations and files. The fields that recipes
of language share (seed, events, guard …) are flipped in test_recipe_leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from tests.contract.test_recipe_leaves import digest
from tests.contract.toy_rows import (
    EVENTS,
    acting_recipe,
    image_file,
    image_folder,
    image_recipe,
    pair_file,
    pair_recipe,
    pair_rows,
    pixels,
    quick_rows,
    table_recipe,
    table_rows,
    work_of,
    write_csv,
)
from tests.contract.toy_run import Options, changed, quick

from groundup.engine.loop import train
from groundup.engine.stop import Stop
from groundup.errors import GroundupError
from groundup.models import NETWORKS
from groundup.recipe.shape import Alternative, Slot, field_slot, models_below
from groundup.recipe.tree import Recipe
from groundup.run.assemble import assemble
from groundup.run.generation import GenerationWork

DATA = ("table", "images", "pairs", "environment")
FAMILIES = (*NETWORKS, "transformer")
OBJECTIVES = ("translate", "reconstruct", "elbo", "adversarial", "dqn", "reinforce", "a2c", "ppo", "sac")
OPTIMIZERS = ("adam", "rmsprop", "adagrad")
SHARED = (
    "budget.rows_per_step", "budget.environment_steps", "schedule.drop", "schedule.every", "schedule.peak",
    "schedule.start", "groups.l1", "plateau.metric", "plateau.drop", "plateau.patience", "plateau.threshold",
    "plateau.minimum",
)  # fmt: skip
"""New leaves of sections that all recipes have."""


# ---------------------------------------------------------------- which leaves there are


def tag_of(model: type[BaseModel]) -> str:
    """What chooses this type among several: its kind, or nothing."""
    field = model.model_fields.get("kind")
    words = get_args(field.annotation) if field is not None else ()
    return f"[{words[0]}]" if len(words) == 1 and isinstance(words[0], str) else ""


def leaves(model: type[BaseModel], path: str) -> Iterator[str]:
    """Every field below a type that holds a value; a list or a choice of types is walked into."""
    for name in model.model_fields:
        below = list(models_below(field_slot(model, name)))
        chooses = name == "family" or (name == "kind" and tag_of(model))
        if not below and not chooses:
            yield f"{path}.{name}"
        for _, nested in below:
            yield from leaves(nested, f"{path}.{name}{tag_of(nested)}")


def kinds(section: str) -> dict[str, type[BaseModel]]:
    """The types of a section of the recipe, by what chooses them."""
    slot: Slot = field_slot(Recipe, section)
    if section == "optim":
        inner = slot.item(mapping=True)
        assert inner is not None
        slot = inner
    assert all(isinstance(found, Alternative) for found in slot.alternatives)
    return slot.kinds()


def every_leaf() -> list[str]:
    """The leaves that only recipes of rows have, as `section:kind.field`, and those of SHARED."""
    chosen = {"data": DATA, "model": FAMILIES, "objective": OBJECTIVES, "optim": OPTIMIZERS}
    found = [
        leaf
        for section, tags in chosen.items()
        for tag in tags
        for leaf in leaves(kinds(section)[tag], f"{section}:{tag}")
    ]
    shared = {"groups", "schedule"}
    own = [leaf for leaf in found if not (leaf.startswith("optim:") and leaf.split(".")[1] in shared)]
    return list(dict.fromkeys([*own, *SHARED]))


ALL = every_leaf()


# ---------------------------------------------------------------- how each is flipped


class Flip(NamedTuple):
    """What a leaf is changed to, in a base that is changed before, and what of it must differ."""

    after: dict[str, Any]
    before: dict[str, Any] = {}  # noqa: RUF012
    refused: bool = False


def collect(**fields: Any) -> dict[str, Any]:
    return {f"data__collect__{name}": value for name, value in fields.items()}


def operation(kind: str, **fields: Any) -> dict[str, Any]:
    return {"data__augment": {"operations": [{"kind": kind, **fields}]}}


def flipped_operation(kind: str, before: dict[str, Any] | None = None, **fields: Any) -> Flip:
    return Flip(operation(kind, **(before or {}) | fields), operation(kind, **(before or {})))


def model(**fields: Any) -> dict[str, Any]:
    return {f"model__{name}": value for name, value in fields.items()}


def objective(kind: str, before: dict[str, Any] | None = None, **fields: Any) -> Flip:
    base = {"kind": kind, **(before or {})}
    return Flip({"objective": base | fields}, {"objective": base})


def optimizer(kind: str, before: dict[str, Any] | None = None, **fields: Any) -> Flip:
    base = {"kind": kind, "learning_rate": 0.02, **(before or {})}
    return Flip({"optim": {"model": base | fields}}, {"optim": {"model": base}})


def deeper(flip: Flip) -> Flip:
    return flip._replace(before=flip.before | model(hidden=[12, 8]))


def schedule(kind: str, **fields: Any) -> Flip:
    return optimizer("adamw", {"schedule": {"kind": kind}}, schedule={"kind": kind, **fields})


PLATEAU = {"patience": 0, "threshold": 0.9, "drop": 0.5}


def plateau(before: dict[str, Any] | None = None, **fields: Any) -> Flip:
    events, base = EVENTS | {"evaluate_every": 1}, PLATEAU | (before or {})
    return Flip({"events": events | {"plateau": base | fields}}, {"events": events | {"plateau": base}})


FOLD = {"of": 4, "number": 0}
ANY_ROWS = {"model__norm": "layer"}
"""A network that bears a last batch of one row."""
WIDE = {"data__files": ["WIDE"]}
HOLES = {"data__files": ["HOLES"], "model__norm": "layer", "data__preprocessing": {"missing": "mean"}}
LIST = {"data__files": ["LIST"]}
COLOURED = {"data__files": ["COLOURED"]}
COLOUR = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
TURN = {"degrees": 0.0, "translate": 0.0, "scale": [1.0, 1.0], "shear": 0.0}
EVENLY = {"data__collect__priorities": None}
GENTLE = {"kind": "ppo", "normalise_advantages": False}

FLIPS: dict[str, Flip] = {
    "data:table.files": Flip({"data__files": ["OTHER"]}),
    "data:table.test_files": Flip({"data__test_files": ["OTHER"]},
                                  ANY_ROWS | {"data__split": {"test": 0.0, "leaks": "allow"}}),
    "data:table.validation_files": Flip({"data__validation_files": ["OTHER"]},
                                        ANY_ROWS | {"data__split": {"leaks": "allow"}}),
    "data:table.task": Flip({"data__task": "multilabel", "data__label_separator": "/"}),
    "data:table.columns.target": Flip({"data__columns": {"target": "colour"}}, {"data__columns": {"target": "label"}}),
    "data:table.columns.numeric": Flip({"data__columns": {"numeric": ["batch"], "ignore": ["team"]}},
                                       WIDE | {"data__columns": {"categorical": ["batch"], "ignore": ["team"]}}),
    "data:table.columns.categorical": Flip({"data__columns": {"categorical": ["batch"]}}, WIDE),
    "data:table.columns.ignore": Flip({"data__columns": {"ignore": ["batch"]}}, WIDE),
    "data:table.columns.group": Flip({"data__columns": {"group": "team"}, "data__split": {"kind": "grouped"}},
                                     WIDE | {"data__columns": {"group": "batch"}, "data__split": {"kind": "grouped"}}),
    "data:table.columns.time": Flip(
        {"data__columns": {"time": "team"}, "data__split": {"kind": "time"}},
        WIDE | {"data__columns": {"time": "batch"}, "data__split": {"kind": "time"}},
    ),
    **{f"data:{kind}.split.folds.{name}": Flip(
        {"data__split": {"folds": [FOLD | {name: value}]}}, {"data__split": {"folds": [FOLD]}})
       for kind in ("table", "images") for name, value in (("of", 3), ("number", 1), ("share", 0.5))},
    "data:table.labels": Flip({"data__labels": ["c", "b", "a"]}),
    "data:table.label_separator": Flip({"data__label_separator": "b"},
                                       {"data__files": ["LABELS"], "data__task": "multilabel",
                                        "data__label_separator": "/"}),
    "data:table.preprocessing.missing": Flip({"data__preprocessing": {"missing": "drop"}}, HOLES),
    "data:table.preprocessing.missing_indicator": Flip(
        {"data__preprocessing": {"missing": "mean", "missing_indicator": True}}, HOLES),
    "data:table.preprocessing.scaling": Flip({"data__preprocessing": {"scaling": "minmax"}}),
    "data:table.preprocessing.scale_target": Flip(
        {"data__preprocessing": {"scale_target": False}}, {"data__files": ["SCORES"], "data__task": "regress"}),
    "data:table.preprocessing.unseen": Flip({"data__preprocessing": {"unseen": "zeros"}},
                                            ANY_ROWS | {"data__test_files": ["UNSEEN"], "data__split": {"test": 0.0}},
                                            refused=True),
    "data:table.preprocessing.rare": Flip({"data__preprocessing": {"rare": 40}}),
    "data:table.preprocessing.categories": Flip({"data__preprocessing": {"categories": "embed"}}),
    "data:table.noise": Flip({"data__noise": 0.5}),
    "data:table.swap": Flip({"data__swap": 0.5}),
    "data:table.balanced": Flip({"data__balanced": True}, {"data__files": ["RARE"]}),
    "data:table.split.kind": Flip({"data__split": {"kind": "random"}}),
    "data:table.split.test": Flip({"data__split": {"test": 0.4}}),
    "data:table.split.validation": Flip({"data__split": {"validation": 0.4}}),
    "data:table.split.seed": Flip({"data__split": {"seed": 5}}),
    "data:table.split.leaks": Flip({"data__split": {"test": 0.0, "leaks": "drop"}},
                                   {"data__test_files": ["SOME"], "data__split": {"test": 0.0}}, refused=True),
    "data:table.malformed_limit": Flip({"data__malformed_limit": 0.5}, {"data__files": ["BROKEN"]}, refused=True),
    "data:images.files": Flip({"data__files": ["OTHER"]}),
    "data:images.test_files": Flip({"data__test_files": ["OTHER"]}, {"data__split": {"test": 0.0}}),
    "data:images.validation_files": Flip({"data__validation_files": ["OTHER"]}, {"data__split": {"validation": 0.0}}),
    "data:images.task": Flip({"data__task": "regress"}),
    "data:images.columns.path": Flip({"data__columns": {"path": "second"}}, LIST),
    "data:images.columns.label": Flip({"data__columns": {"label": "mood"}}, LIST),
    "data:images.columns.group": Flip({"data__columns": {"group": "team"}, "data__split": {"kind": "grouped"}},
                                      LIST | {"data__columns": {"group": "user"}, "data__split": {"kind": "grouped"}}),
    "data:images.labels": Flip({"data__labels": ["2", "1", "0"]}),
    "data:images.split.kind": Flip({"data__split": {"kind": "random"}}),
    "data:images.split.test": Flip({"data__split": {"test": 0.4}}),
    "data:images.split.validation": Flip({"data__split": {"validation": 0.4}}),
    "data:images.split.seed": Flip({"data__split": {"seed": 5}}),
    "data:images.split.leaks": Flip({"data__split": {"test": 0.0, "leaks": "drop"}},
                                    {"data__test_files": ["SOME"], "data__split": {"test": 0.0}}, refused=True),
    "data:images.size": Flip({"data__size": 12}),
    "data:images.channels": Flip({"data__channels": 3}),
    "data:images.resize": Flip({"data__resize": "fit"}, {"data__size": [8, 12]}),
    "data:images.normalise": Flip({"data__normalise": "unit"}),
    "data:images.limits.max_pixels": Flip({"data__limits": {"max_pixels": 100, "malformed_limit": 1.0}},
                                          {"data__files": ["MIXED"], "data__size": 8}),
    "data:images.limits.over_limit": Flip(
        {"data__limits": {"max_pixels": 100, "over_limit": "set_aside"}},
        {"data__files": ["MIXED"], "data__size": 8, "data__limits": {"max_pixels": 100, "over_limit": "refuse"}},
        refused=True),
    "data:images.limits.malformed_limit": Flip({"data__limits": {"malformed_limit": 0.5}},
                                               {"data__files": ["BROKEN"]}, refused=True),
    "data:images.balanced": Flip({"data__balanced": True}, {"data__files": ["RARE"]}),
    **{f"data:images.augment.operations[{kind}].probability": flipped_operation(kind, probability=0.9)
       for kind in ("flip_horizontal", "flip_vertical", "erase")},
    **{f"data:images.augment.operations[{kind}].probability": flipped_operation(kind, probability=0.5)
       for kind in ("mixup", "cutmix")},
    "data:images.augment.operations[crop].padding": flipped_operation("crop", padding=1),
    "data:images.augment.operations[rotate].degrees": flipped_operation("rotate", degrees=90.0),
    "data:images.augment.operations[affine].degrees": flipped_operation("affine", TURN, degrees=90.0),
    "data:images.augment.operations[affine].translate": flipped_operation("affine", TURN, translate=0.5),
    "data:images.augment.operations[affine].scale": flipped_operation("affine", TURN, scale=[0.5, 0.8]),
    "data:images.augment.operations[affine].shear": flipped_operation("affine", TURN, shear=30.0),
    "data:images.augment.operations[colour].brightness": flipped_operation("colour", COLOUR, brightness=0.5),
    "data:images.augment.operations[colour].contrast": flipped_operation("colour", COLOUR, contrast=0.5),
    "data:images.augment.operations[colour].saturation": Flip(
        operation("colour", **COLOUR | {"saturation": 0.9}), COLOURED | operation("colour", **COLOUR)),
    "data:images.augment.operations[erase].area": flipped_operation("erase", area=[0.3, 0.6]),
    "data:images.augment.operations[erase].aspect": flipped_operation("erase", aspect=1.0),
    "data:images.augment.operations[mixup].alpha": flipped_operation("mixup", alpha=0.1),
    "data:images.augment.operations[cutmix].alpha": flipped_operation("cutmix", alpha=0.1),
    "data:pairs.files": Flip({"data__files": ["OTHER PAIRS"]}),
    "data:pairs.test_files": Flip({"data__test_files": ["OTHER PAIRS"]}, {"data__split": {"test": 0.0}}),
    "data:pairs.validation_files": Flip({"data__validation_files": ["OTHER PAIRS"]},
                                        {"data__split": {"validation": 0.0}}),
    "data:pairs.columns.source": Flip({"data__columns": {"source": "other", "target": "to"}},
                                      {"data__files": ["NAMED"], "data__columns": {"source": "from", "target": "to"}}),
    "data:pairs.columns.target": Flip({"data__columns": {"source": "from", "target": "other"}},
                                      {"data__files": ["NAMED"], "data__columns": {"source": "from", "target": "to"}}),
    "data:pairs.split.test": Flip({"data__split": {"test": 0.4}}),
    "data:pairs.split.validation": Flip({"data__split": {"validation": 0.4}}),
    "data:pairs.split.seed": Flip({"data__split": {"seed": 5}}),
    "data:pairs.max_length": Flip({"data__max_length": 19}),
    "data:pairs.over_long": Flip({"data__over_long": "cut"}, {"data__max_length": 19}),
    "data:pairs.malformed_limit": Flip({"data__malformed_limit": 0.5}, {"data__files": ["BROKEN PAIRS"]}, refused=True),
    "data:pairs.remove_duplicates": Flip({"data__remove_duplicates": True}, {"data__files": ["TWICE"]}),
    "data:pairs.augment.drop": Flip({"data__augment": {"drop": 0.3}}),
    "data:pairs.augment.move": Flip({"data__augment": {"move": 3}}),
    "data:pairs.augment.mask": Flip({"data__augment": {"mask": 0.3}}, {"tokenizer": {"kind": "char", "mask": True}}),
    "data:pairs.augment.replace": Flip({"data__augment": {"replace": 0.3}}),
    "data:environment.environment.id": Flip({"data__environment__id": "CartPole-v1"}),
    "data:environment.environment.count": Flip({"data__environment__count": 3}),
    "data:environment.environment.options": Flip(
        {"data__environment": {"id": "FrozenLake-v1", "options": {"is_slippery": False}}},
        {"data__environment": {"id": "FrozenLake-v1"}}),
    "data:environment.environment.time_limit": Flip({"data__environment__time_limit": 3}),
    "data:environment.collect[rollout].horizon": Flip(collect(horizon=8)),
    "data:environment.collect[rollout].epochs": Flip(collect(epochs=1)),
    "data:environment.collect[rollout].minibatches": Flip(collect(minibatches=4)),
    "data:environment.collect[rollout].gae_lambda": Flip(collect(gae_lambda=0.1)),
    "data:environment.collect[rollout].normalise_observations": Flip(collect(normalise_observations=False)),
    "data:environment.collect[rollout].normalise_rewards": Flip(collect(normalise_rewards=True)),
    "data:environment.collect[replay].capacity": Flip(collect(capacity=42)),
    "data:environment.collect[replay].steps_per_update": Flip(collect(steps_per_update=3)),
    "data:environment.collect[replay].warm_up_steps": Flip(collect(warm_up_steps=60)),
    "data:environment.collect[replay].n_steps": Flip(collect(n_steps=1)),
    "data:environment.collect[replay].priorities.alpha": Flip(collect(priorities={"alpha": 0.1})),
    "data:environment.collect[replay].priorities.beta": Flip(collect(priorities={"beta": 1.0})),
    "data:environment.collect[replay].priorities.beta_steps": Flip(collect(priorities={"beta_steps": 5})),
    "data:environment.episodes": Flip({"data__episodes": 4}),
    "data:environment.final_episodes": Flip({"data__final_episodes": 4}),
    "data:environment.sampled": Flip({"data__sampled": True}, {"data__episodes": 4}),
    "model:linear.bias": Flip(model(bias=False)),
    "model:mlp.hidden": Flip(model(hidden=[6])),
    "model:mlp.activation": Flip(model(activation="tanh")),
    "model:mlp.initialisation": Flip(model(initialisation="orthogonal")),
    "model:mlp.norm": Flip(model(norm="layer")),
    "model:mlp.dropout": Flip(model(dropout=0.5)),
    "model:mlp.bias": Flip(model(bias=False)),
    "model:convnet.channels": Flip(model(channels=[4])),
    "model:convnet.kernel": Flip(model(kernel=5)),
    "model:convnet.padding": Flip(model(padding="none"), model(channels=[4])),
    "model:convnet.pooling": Flip(model(pooling="average")),
    "model:convnet.hidden": Flip(model(hidden=[6])),
    "model:convnet.activation": Flip(model(activation="tanh")),
    "model:convnet.initialisation": Flip(model(initialisation="orthogonal")),
    "model:convnet.norm": Flip(model(norm="none")),
    "model:convnet.dropout": Flip(model(dropout=0.6)),
    "model:resnet.layout": Flip(model(layout="imagenet", depth=18)),
    "model:resnet.depth": Flip(model(depth=14)),
    "model:resnet.width": Flip(model(width=8)),
    "model:resnet.zero_last_norm": Flip(model(zero_last_norm=False)),
    "model:resnet.dropout": Flip(model(dropout=0.5)),
    "model:inception.stem": Flip(model(stem=8)),
    "model:inception.channels": Flip(model(channels=[32])),
    "model:inception.modules": Flip(model(modules=2)),
    "model:inception.dropout": Flip(model(dropout=0.5)),
    "model:recurrent.cell": Flip(model(cell="gru")),
    "model:recurrent.layers": Flip(model(layers=2)),
    "model:recurrent.width": Flip(model(width=4)),
    "model:recurrent.bidirectional": Flip(model(bidirectional=True)),
    "model:recurrent.dropout": Flip(model(dropout=0.5)),
    "model:vit.patch": Flip(model(patch=2)),
    "model:vit.width": Flip(model(width=16)),
    "model:vit.layers": Flip(model(layers=2)),
    "model:vit.heads": Flip(model(heads=1)),
    "model:vit.hidden": Flip(model(hidden=12)),
    "model:vit.pooling": Flip(model(pooling="mean")),
    "model:vit.norm_epsilon": Flip(model(norm_epsilon=0.1)),
    "model:vit.dropout": Flip(model(dropout=0.5)),
    "model:autoencoder.kind": Flip(model(kind="convolutional")),
    "model:autoencoder.widths": Flip(model(widths=[12])),
    "model:autoencoder.latent": Flip(model(latent=3)),
    "model:vae.hidden": Flip(model(hidden=[12])),
    "model:vae.latent": Flip(model(latent=3)),
    "model:vae.dropout": Flip(model(dropout=0.5)),
    "model:gan.kind": Flip(model(kind="convolutional", widths=[8])),
    "model:gan.widths": Flip(model(widths=[12, 16])),
    "model:gan.latent": Flip(model(latent=3)),
    "model:gan.conditional": Flip(model(conditional=True), {"data__task": "classify"}),
    "model:gan.critic_norm": Flip(model(critic_norm="batch"), model(kind="convolutional", widths=[8, 4])),
    "model:q_network.hidden": Flip(model(hidden=[6])),
    "model:q_network.activation": Flip(model(activation="tanh")),
    "model:q_network.dueling": Flip(model(dueling=True)),
    "model:actor_critic.hidden": Flip(model(hidden=[6])),
    "model:actor_critic.activation": Flip(model(activation="relu")),
    "model:actor_critic.shared": Flip(model(shared=True)),
    "model:actor_critic.initial_deviation": Flip(
        model(initial_deviation=0.3), {"data__environment": {"id": "Pendulum-v1", "time_limit": 20}}),
    "model:soft_actor_critic.hidden": Flip(model(hidden=[6])),
    "model:soft_actor_critic.activation": Flip(model(activation="tanh")),
    "model:soft_actor_critic.initial_temperature": Flip(model(initial_temperature=0.3)),
    "model:transformer.context": Flip(model(context=32)),
    "model:transformer.width": Flip(model(width=8)),
    "model:transformer.encoder_layers": Flip(model(encoder_layers=2)),
    "model:transformer.decoder_layers": Flip(model(decoder_layers=2)),
    "model:transformer.heads": Flip(model(heads=4)),
    "model:transformer.hidden": Flip(model(hidden=16)),
    "model:transformer.dropout": Flip(model(dropout=0.5)),
    "model:transformer.positions": Flip(model(positions="learned")),
    "model:transformer.norm": Flip(model(norm="post")),
    "model:transformer.tied": Flip(model(tied=False)),
    "objective:translate.label_smoothing": objective("translate", label_smoothing=0.3),
    "objective:reconstruct.loss": objective("reconstruct", loss="binary_cross_entropy"),
    "objective:reconstruct.noise": objective("reconstruct", noise=0.3),
    "objective:elbo.beta": objective("elbo", beta=4.0),
    "objective:elbo.binarise": objective("elbo", binarise="threshold"),
    "objective:adversarial.loss": objective("adversarial", loss="hinge"),
    "objective:adversarial.critic_steps": objective("adversarial", critic_steps=2),
    "objective:adversarial.label_smoothing": objective("adversarial", label_smoothing=0.2),
    "objective:adversarial.r1": objective("adversarial", r1=5.0),
    "objective:adversarial.gradient_penalty": objective(
        "adversarial", {"loss": "wasserstein_gp"}, gradient_penalty=1.0),
    "objective:adversarial.collapse_spread": objective("adversarial", {"collapse_steps": 2}, collapse_spread=0.99),
    "objective:adversarial.collapse_steps": objective("adversarial", {"collapse_spread": 0.99}, collapse_steps=2),
    "objective:dqn.discount": objective("dqn", discount=0.5),
    "objective:dqn.target_every": objective("dqn", target_every=2),
    "objective:dqn.target_rate": objective("dqn", {"target_every": 1}, target_rate=0.3),
    "objective:dqn.double": objective("dqn", {"target_every": 2}, double=False),
    "objective:dqn.huber": objective("dqn", huber=False),
    "objective:dqn.epsilon_from": objective("dqn", epsilon_from=0.0),
    "objective:dqn.epsilon_to": objective("dqn", {"epsilon_steps": 1}, epsilon_to=1.0),
    "objective:dqn.epsilon_steps": objective("dqn", {"epsilon_to": 0.0}, epsilon_steps=1),
    **{f"objective:{kind}.discount": objective(kind, discount=0.5) for kind in ("reinforce", "a2c", "ppo", "sac")},
    **{f"objective:{kind}.value_weight": objective(kind, value_weight=3.0) for kind in ("reinforce", "a2c", "ppo")},
    **{f"objective:{kind}.entropy_weight": objective(kind, entropy_weight=3.0) for kind in ("reinforce", "a2c", "ppo")},
    **{f"objective:{kind}.normalise_advantages": objective(kind, normalise_advantages=True)
       for kind in ("reinforce", "a2c")},
    "objective:ppo.normalise_advantages": objective("ppo", normalise_advantages=False),
    "objective:ppo.clip": objective("ppo", {"clip": 0.2}, clip=0.001),
    "objective:ppo.value_clip": objective("ppo", value_clip=0.001),
    "objective:ppo.target_kl": objective("ppo", target_kl=1e-9),
    "objective:sac.target_rate": objective("sac", target_rate=0.9),
    "objective:sac.target_entropy": objective("sac", target_entropy=3.0),
    **{f"optim:{kind}.learning_rate": optimizer(kind, learning_rate=0.1) for kind in OPTIMIZERS},
    **{f"optim:{kind}.weight_decay": optimizer(kind, weight_decay=0.5) for kind in OPTIMIZERS},
    **{f"optim:{kind}.l1": optimizer(kind, l1=0.5) for kind in OPTIMIZERS},
    **{f"optim:{kind}.clip": optimizer(kind, {"epsilon": 0.1}, clip=1e-3) for kind in OPTIMIZERS},
    **{f"optim:{kind}.layer_decay": deeper(optimizer(kind, layer_decay=0.3)) for kind in OPTIMIZERS},
    **{f"optim:{kind}.epsilon": optimizer(kind, epsilon=0.1) for kind in OPTIMIZERS},
    "optim:adam.beta1": optimizer("adam", beta1=0.5),
    "optim:adam.beta2": optimizer("adam", beta2=0.5),
    "optim:rmsprop.alpha": optimizer("rmsprop", alpha=0.5),
    "optim:rmsprop.momentum": optimizer("rmsprop", momentum=0.5),
    "optim:rmsprop.centered": optimizer("rmsprop", centered=True),
    "budget.rows_per_step": Flip({"budget__rows_per_step": 32}),
    "budget.environment_steps": Flip({"budget__steps": None, "budget__environment_steps": 9}),
    "schedule.drop": schedule("step", drop=0.5),
    "schedule.every": schedule("exponential", every=2),
    "schedule.peak": schedule("one_cycle", peak=0.8),
    "schedule.start": schedule("one_cycle", start=0.5),
    "groups.l1": optimizer("adamw", groups=[{"pattern": "*layers*", "l1": 1.0}]),
    "plateau.metric": plateau({"threshold": 0.0}, metric="accuracy"),
    "plateau.drop": plateau(drop=0.1),
    "plateau.patience": plateau(patience=9),
    "plateau.threshold": plateau(threshold=0.0),
    "plateau.minimum": plateau(minimum=0.7),
}  # fmt: skip
EXCEPTIONS = {
    "data:images.limits.memory_bytes": "where pixels are kept changes no number, by promise; shown in the data room",
    "model:q_network.channels": "needs an environment of images; shown by the tests of the models",
    "model:policy_value.width": "needs a game, whose runs are in tests/run/test_playing.py",
    "model:policy_value.blocks": "needs a game, whose runs are in tests/run/test_playing.py",
}


@pytest.fixture(scope="module", autouse=True)
def gymnasium_is_there() -> None:
    pytest.importorskip("gymnasium")


def test_every_leaf_is_flipped_or_has_its_reason() -> None:
    missing = [leaf for leaf in ALL if leaf not in FLIPS and leaf not in EXCEPTIONS]
    assert not missing, f"a new field needs a flip here: {missing}"
    assert not [leaf for leaf in FLIPS if leaf not in ALL], "a flip of a field that is gone"
    assert not [leaf for leaf in FLIPS if leaf in EXCEPTIONS], "a leaf both flipped and excepted"
    assert all(EXCEPTIONS.values())


# ---------------------------------------------------------------- what is flipped


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The inputs that flips speak of; the same name means another file for images than for tables."""
    root = tmp_path_factory.mktemp("files")
    return {name: str(path) for name, path in {**tables(root), **pictures(root), **sentences(root)}.items()}


def tables(root: Path) -> dict[str, Path]:
    names = ("size", "weight", "colour", "label")
    whole, other = table_rows(), table_rows(60, seed=5)
    plain = [{name: row[name] for name in names} for row in whole]
    again = [{name: row[name] for name in names} for row in other]
    made: dict[str, list[dict[str, Any]]] = {
        "TABLE": plain,
        "OTHER": again,
        "SOME": plain[:9],
        "WIDE": [row | {"batch": n % 20, "team": n % 30} for n, row in enumerate(plain)],
        "HOLES": [row | {"size": "" if n % 4 == 0 else row["size"]} for n, row in enumerate(plain)],
        "LABELS": [{"size": row["size"], "weight": row["weight"], "label": row["labels"]} for row in whole],
        "SCORES": [{"size": row["size"], "weight": row["weight"], "target": row["score"]} for row in whole],
        "RARE": [row for n, row in enumerate(plain) if n % 3 or n % 2],
        "UNSEEN": [row | {"colour": "violet"} for row in again],
    }  # fmt: skip
    found = {f"table {name}": write_csv(root / f"{name}.csv", rows) for name, rows in made.items()}
    broken = write_csv(root / "BROKEN.csv", plain)
    broken.write_text(broken.read_text(encoding="utf-8") + "1,2,red,a,too,many\n" * 5, encoding="utf-8")
    return {**found, "table BROKEN": broken}


def pictures(root: Path) -> dict[str, Path]:
    folder, large, broken = image_folder(root / "png"), root / "mixed", root / "broken"
    image_folder(large)
    image_folder(large, 8, seed=4, side=16)
    image_folder(broken)
    for number in range(2):
        (broken / "a" / f"broken-{number}.png").write_bytes(b"nothing")
    found = sorted(folder.rglob("*.png"))
    listed = [
        {"path": str(path.relative_to(root)), "second": str(found[-1 - n].relative_to(root)), "label": path.parent.name,
         "mood": "xy"[n % 2], "user": n % 12, "team": n % 7}
        for n, path in enumerate(found)
    ]  # fmt: skip
    rare = image_folder(root / "rare", 36)
    for number, path in enumerate(sorted((rare / "a").glob("*.png"))):
        if number % 2:
            path.unlink()
    some, _ = pixels(60, 0)
    np.savez(root / "some.npz", images=some[:9], labels=np.arange(9) % 3)
    return {
        "images IMAGES": image_file(root), "images OTHER": image_file(root, 30, seed=5),
        "images SOME": root / "some.npz",
        "images COLOURED": image_file(root, channels=3), "images LIST": write_csv(root / "list.csv", listed),
        "images MIXED": large, "images BROKEN": broken, "images RARE": rare,
    }  # fmt: skip


def sentences(root: Path) -> dict[str, Path]:
    plain = pair_rows()
    named = [{"from": a, "to": b, "other": b[::-1]} for a, b in plain]
    broken, twice = root / "broken.tsv", root / "twice.tsv"
    broken.write_text("".join(f"{a}\t{b}\n" for a, b in plain) + "alone\n" * 5)
    twice.write_text("".join(f"{a}\t{b}\n" for a, b in [*plain, *plain]))
    return {
        "pairs PAIRS": pair_file(root), "pairs OTHER PAIRS": pair_file(root, 40, seed=7),
        "pairs NAMED": write_csv(root / "named.csv", named), "pairs BROKEN PAIRS": broken, "pairs TWICE": twice,
    }  # fmt: skip


SMALL: dict[str, Options] = {
    "linear": {"family": "linear"},
    "resnet": {"family": "resnet", "depth": 8, "width": 4},
    "inception": {"family": "inception", "stem": 4, "channels": [16], "modules": 1},
    "recurrent": {"family": "recurrent", "width": 8},
    "vit": {"family": "vit", "patch": 4, "width": 8, "layers": 1, "heads": 2},
}
OF_FAMILY = {"q_network": "dqn", "actor_critic": "ppo", "soft_actor_critic": "sac"}
OF_OBJECTIVE = {"reconstruct": "autoencoder", "elbo": "vae", "adversarial": "gan"}


def base_of(leaf: str, files: dict[str, str]) -> tuple[str, Options]:
    """The kind of data and the recipe that a leaf is flipped in."""
    section, _, kind = leaf.partition(".")[0].partition(":")
    images = Path(files["images IMAGES"])
    if leaf == "budget.environment_steps" or (section, kind) == ("data", "environment"):
        return "environment", acting_recipe("ppo" if "[rollout]" in leaf or leaf.endswith("sampled") else "dqn")
    if section == "objective" and kind not in (*OF_OBJECTIVE, "translate"):
        return "environment", acting_recipe(kind)
    if section == "model" and kind in OF_FAMILY:
        return "environment", acting_recipe(OF_FAMILY[kind])
    if kind in ("pairs", "transformer", "translate"):
        return "pairs", pair_recipe(Path(files["pairs PAIRS"]))
    family = OF_OBJECTIVE.get(kind, kind)
    if section == "model" and kind in SMALL:
        return "images", changed(image_recipe(images), model=SMALL[kind])
    if kind in ("images", "convnet") or family in ("autoencoder", "vae", "gan"):
        return "images", image_recipe(images, family if family != "images" else "convnet")
    return "table", table_recipe(Path(files["table TABLE"]))


def place(value: Any, files: dict[str, str], kind: str) -> Any:
    """The names of files in a change, replaced by their paths."""
    if isinstance(value, dict):
        return {name: place(item, files, kind) for name, item in value.items()}
    if isinstance(value, list):
        return [place(item, files, kind) for item in value]
    return files.get(f"{kind} {value}", value) if isinstance(value, str) else value


# ---------------------------------------------------------------- what is seen


def visible(recipe: Options, folder: Path) -> dict[str, Any]:
    """What can be seen of the run that a recipe builds, and of the run itself."""
    said: list[str] = []
    try:
        work = work_of(recipe, folder)
        if isinstance(work, GenerationWork):
            work.say = said.append
        run, log, save = assemble(work, folder, listeners=(), stop=Stop())
    except GroundupError as fault:
        return {"refused": fault.code}
    state, events = run.state, work.recipe.events
    first = digest(state.module.state_dict())
    run.events = [event for event in run.events if events.plateau is not None and type(event).__name__ == "Evaluate"]
    train(run)
    log.close()
    with torch.inference_mode():
        scores = work.score(state.module, final=True).as_dict()
    return {
        "steps": [run.steps, run.accumulate, run.clip],
        "first": first,
        "last": digest(state.module.state_dict()),
        "rates": {name: [o.learning_rate(step) for step in range(run.steps)] for name, o in state.optimizers.items()},
        "rows": work.rows_per_epoch,
        "ledger": state.source.state_dict()["ledger"],
        "objective": repr(state.objective.state_dict()) if not state.objective.state_dict().get("target") else "",
        "evaluation": work.evaluate(state.module),
        "scores": scores,
        "files": {name: data for name, data in save.files().items() if name != "recipe.yaml"},
        "said": said,
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is visible of a recipe, kept so that each base is built once."""
    known: dict[str, dict[str, Any]] = {}

    def look(recipe: Options) -> dict[str, Any]:
        key = repr(recipe)
        if key not in known:
            known[key] = visible(recipe, tmp_path_factory.mktemp("base") / "run")
        return known[key]

    return look


@pytest.mark.parametrize("leaf", FLIPS)
def test_each_leaf_changes_the_run(
    leaf: str, files: dict[str, str], plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    quick_rows(monkeypatch)
    kind, base = base_of(leaf, files)
    base = changed(base, budget__steps=4)
    flip = FLIPS[leaf]
    base = changed(base, **place(flip.before, files, kind))
    before = plain(base)
    after = visible(changed(base, **place(flip.after, files, kind)), tmp_path / "run")
    assert before != after, f"{leaf} does nothing that can be seen"
    assert "refused" not in after, after
    assert ("refused" in before) == flip.refused, before
