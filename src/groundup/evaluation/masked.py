"""How well a model tells the tokens that are hidden: the loss and the hits of each window of held-out text. No
decoder's loss compares with it: such a model sees nothing of what stands behind a token, and answers for all of them.

Shapes: B rows of a batch, T positions, N chosen tokens, W windows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from groundup.contract import IGNORE, Batch, MaskedModel
from groundup.evaluation.language import LOGITS
from groundup.evaluation.metrics import LabelScores
from groundup.functional import evaluating


@torch.inference_mode()
def score_hidden(
    model: MaskedModel,
    batches: Iterable[tuple[Batch, NDArray[np.int64]]],
    windows: int,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
) -> LabelScores:
    """Nats, chosen tokens and hits of each window, float64 (W,); few logits at a time.

    Args:
        model: its mode is left alone.
        batches: with targets at the chosen tokens, IGNORE elsewhere; and the window of each row.
        windows: how many there are.
    """
    nats_W, targets_W, right_W = np.zeros((3, windows))
    with evaluating(model), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        weight_VD, bias_V = model.output()
        rows = max(1, LOGITS // weight_VD.shape[0])
        for batch, window_B in batches:
            chosen_BT = batch["target_BT"] != IGNORE
            unit_N = window_B[chosen_BT.nonzero()[:, 0].numpy()]
            placed = {name: tensor.to(device) for name, tensor in batch.items()}
            states_ND = model.states_at(placed, placed["target_BT"] != IGNORE)
            target_N = placed["target_BT"][placed["target_BT"] != IGNORE]
            nats, right = [], []
            for states, target in zip(states_ND.split(rows), target_N.split(rows)):
                logits_NV = F.linear(states, weight_VD, bias_V).float()
                nats.append(F.cross_entropy(logits_NV, target, reduction="none").double())
                right.append((logits_NV.argmax(dim=-1) == target).double())
            np.add.at(nats_W, unit_N, torch.cat(nats).cpu().numpy())
            np.add.at(right_W, unit_N, torch.cat(right).cpu().numpy())
            np.add.at(targets_W, unit_N, 1)
    return LabelScores(nats_W, targets_W, right_W)
