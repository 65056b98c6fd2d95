"""Texts and their translations as work for a run of the encoder-decoder Transformer.

A translator's model folder is that of a language model: its weights belong to a tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup import checkpoint
from groundup.adapters import apply
from groundup.contract import IGNORE, Batch, Objective, Source
from groundup.data.chat_rows import SetAside
from groundup.data.labelled_options import Side
from groundup.data.parallel_options import ParallelOptions
from groundup.data.parallel_stream import EncodedPairs, Pair, ParallelStream, batches, collate, encode_pairs
from groundup.data.parallel_text import ParallelRow, read_parallel
from groundup.data.text_noise import TextNoise
from groundup.errors import GroundupError, printable
from groundup.evaluation.metrics import LabelScores
from groundup.evaluation.translation import Tokenization, TranslationMemory, translation_scores
from groundup.functional import evaluating
from groundup.inference.beam import BeamOptions, translate
from groundup.machine.ceiling import choose_precision, resolve_device
from groundup.models.transformer import Transformer, TransformerOptions
from groundup.objectives.translate import Translate, TranslateOptions
from groundup.recipe.check import Check
from groundup.recipe.check_rows import fits_network
from groundup.recipe.faults import Places, raise_all
from groundup.recipe.resolve_rows import resolve_rows
from groundup.recipe.tree import PairData, Recipe, TranslatorOptions
from groundup.run.cards import write_card, write_quarantine
from groundup.run.measuring import FIRST_ROWS, evaluation_of
from groundup.run.models import MODEL_FILE, TOKENIZER_FILE, as_json, find_model
from groundup.run.noise import noise_of
from groundup.run.prediction import room_options
from groundup.run.results import Scores
from groundup.run.texts import own_tokenizer
from groundup.run.work import Memory, Say, Work, by_first_part
from groundup.text.tokenizer import AnyTokenizer, Tokenizer

METRICS = ("token_loss", "token_accuracy")
TRANSLATED = 500
"""Test sentences that are translated for chrF; the loss is measured on all."""
BEAMS = 4
ROWS_AT_ONCE = 64


@dataclass(kw_only=True)
class TranslationWork(Work):
    """Pairs of texts, a tokenizer for both sides, and the network between them."""

    options: TransformerOptions
    tokenizer: AnyTokenizer
    rows: dict[Side, list[ParallelRow]]
    pairs: dict[Side, EncodedPairs]
    noise: TextNoise | None = None
    card: dict[str, Any] = field(default_factory=dict)

    def source(self) -> Source:
        """A fresh training stream."""
        return ParallelStream(
            self.pairs["train"].pairs,
            rows=self.recipe.budget.micro_batch or 1,
            pad_id=self.tokenizer.pad_id,
            seed=self.recipe.seed,
            noise=self.noise,
        )

    @property
    def rows_per_epoch(self) -> int:
        """Training pairs."""
        return len(self.pairs["train"].pairs)

    @property
    def unit(self) -> str:
        """Steps are made of pairs; the ledger counts their tokens."""
        return "tokens"

    @property
    def units_per_row(self) -> float:
        """The mean number of tokens of a pair, both sides."""
        pairs = self.pairs["train"].pairs
        return sum(len(pair.source) + len(pair.target) for pair in pairs) / len(pairs)

    def network(self) -> nn.Module:
        """The network with its first weights: drawn from the seed, or those of init_from."""
        model: nn.Module = Transformer(self.options)
        if self.init_from is None:
            model.initialise(torch.Generator().manual_seed(self.recipe.seed))  # type: ignore[operator]
        else:
            model = load_translator(self.init_from, torch.device("cpu")).model.train()
        apply(model, self.recipe.adapters, seed=self.recipe.seed)
        return model.to(self.device)

    def stand_in(self) -> nn.Module:
        """A network of the run's sizes, to be thrown away."""
        model = Transformer(self.options)
        model.initialise(torch.Generator().manual_seed(0))
        apply(model, self.recipe.adapters, seed=0)
        return model.to(self.device)

    def objective(self, model: Any) -> Objective:
        """Cross-entropy of the target."""
        assert isinstance(self.recipe.objective, TranslateOptions)
        return Translate(self.recipe.objective, model)

    def rehearsal_batch(self) -> Batch:
        """The longest pairs."""
        longest = sorted(self.pairs["train"].pairs, key=lambda pair: -len(pair.source) - len(pair.target))
        return collate(longest[: self.recipe.budget.micro_batch or 1], self.tokenizer.pad_id)

    def small_files(self) -> dict[str, bytes]:
        """model.json and tokenizer.json."""
        said = {"family": "transformer", "options": self.options.model_dump()}
        return {MODEL_FILE: as_json(said), TOKENIZER_FILE: self.tokenizer.to_json().encode() + b"\n"}

    def parameter_parts(self) -> list[dict[str, Any]]:
        """Parameters by the first part of their names."""
        with torch.device("meta"):
            return by_first_part(Transformer(self.options))

    def memory(self, process: int) -> Memory:
        """Peak memory, roughly: what the rehearsal measures counts where it is more."""
        weights = 4 * sum(part["parameters"] for part in self.parameter_parts())
        rows, options = self.recipe.budget.micro_batch or 1, self.options
        layers = options.encoder_layers + options.decoder_layers
        activations = 4 * rows * options.context * (10 * layers * options.width + 2 * options.vocabulary)
        return Memory(weights, weights, 2 * weights, activations, 0, process)

    def flops_per_unit(self, model: nn.Module) -> float:
        """Of one token: six for each weight of the side that reads it, embeddings apart."""
        weights = sum(p.numel() for name, p in model.named_parameters() if "embedding" not in name)
        return 6.0 * weights

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """The validation pairs."""
        pairs = self.pairs["validation"].pairs
        if not pairs:
            return {}
        found = evaluation_of(self._scores(model, pairs), METRICS)
        for values in found.values():
            values["loss"] = values.pop("token_loss")
        return {"validation": found}

    @property
    def measured(self) -> Side:
        """The side that the closing evaluation is made on."""
        return "test" if self.pairs["test"].pairs else "validation"

    def score(self, model: nn.Module, *, final: bool) -> Scores:
        """The loss of the pairs of the measured side."""
        pairs = self.pairs[self.measured].pairs[: None if final else FIRST_ROWS]
        return Scores({self.measured: self._scores(model, pairs)} if pairs else {}, partial=not final)

    def metric_names(self, scores: Any) -> Sequence[str]:
        """Of the target's tokens, given those before."""
        return METRICS

    def _scores(self, model: Any, pairs: Sequence[Pair]) -> LabelScores:
        return score_pairs(model, pairs, pad_id=self.tokenizer.pad_id, device=self.device, autocast=self.dtype)

    def samples(self, model: nn.Module) -> list[dict[str, str]]:
        """Translations of the first validation sentences."""
        rows = [self.rows["validation"][index] for index in self.pairs["validation"].indices[:3]]
        texts = [row.source for row in rows]
        said = translate_texts(model, self.tokenizer, texts, beams=1)
        return [{"prompt": f"{text} → ", "text": one, "finish": "stop"} for text, one in zip(texts, said, strict=True)]

    def results(self, model: nn.Module) -> dict[str, Any]:
        """chrF and BLEU of greedy and beam search beside a translation memory, and examples."""
        side = self.measured
        chosen = [self.rows[side][index] for index in self.pairs[side].indices[:TRANSLATED]]
        if not chosen:
            return {}
        sources, references = [row.source for row in chosen], [row.target for row in chosen]
        stored = self.rows["train"]
        memory = TranslationMemory([row.source for row in stored], [row.target for row in stored])
        said = {
            "beam": translate_texts(model, self.tokenizer, sources, beams=BEAMS),
            "greedy": translate_texts(model, self.tokenizer, sources, beams=1),
            "memory": memory.translate(sources),
        }
        cut = tokenization_of(references)
        found = {name: translation_scores(texts, references, tokenization=cut) for name, texts in said.items()}
        examples = [
            {"source": source, "reference": reference, **{name: texts[number] for name, texts in said.items()}}
            for number, (source, reference) in enumerate(zip(sources[:10], references[:10], strict=True))
        ]
        scores = {name: scored.as_dict() for name, scored in found.items()}
        return {"translation": {"data": side, "sentences": len(chosen), "scores": scores, "examples": examples}}

    def data_ledger(self) -> dict[str, Any]:
        """What became of every pair."""
        return self.card


@torch.inference_mode()
def score_pairs(
    model: Any, pairs: Sequence[Pair], *, pad_id: int, device: torch.device, autocast: torch.dtype | None
) -> LabelScores:
    """The loss of each pair's target given the reference so far, its tokens, and how many are the likeliest."""
    nats, targets, right = (np.zeros(len(pairs)) for _ in range(3))
    with evaluating(model), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for batch, indices in batches(pairs, rows=ROWS_AT_ONCE, pad_id=pad_id):
            placed = {name: tensor.to(device) for name, tensor in batch.items()}
            hidden_BTD = model.hidden(
                placed["source_BS"], placed["source_document_BS"], placed["tokens_BT"], placed["document_BT"]
            )
            logits_BTV = nn.functional.linear(hidden_BTD, model.head_weight()).float()
            target_BT = placed["target_BT"]
            valid_BT = target_BT != IGNORE
            loss_BT = nn.functional.cross_entropy(
                logits_BTV.transpose(1, 2), target_BT, ignore_index=IGNORE, reduction="none"
            )
            nats[indices] = loss_BT.sum(dim=1).double().cpu().numpy()
            targets[indices] = valid_BT.sum(dim=1).cpu().numpy()
            right[indices] = ((logits_BTV.argmax(dim=-1) == target_BT) & valid_BT).sum(dim=1).cpu().numpy()
    return LabelScores(nats, targets, right)


def tokenization_of(references: Sequence[str]) -> Tokenization:
    """What BLEU counts: characters where most are of scripts without spaces between words, else words."""
    characters = sum(ord(c) > 0x2E7F for text in references for c in text)
    return "char" if 2 * characters > sum(map(len, references)) else "13a"


def translate_texts(model: Any, tokenizer: AnyTokenizer, texts: Sequence[str], *, beams: int) -> list[str]:
    """The best translation of each text; a text longer than the model's context is cut."""
    sources = [tokenizer.encode(text)[: model.context] or [tokenizer.pad_id] for text in texts]
    options = BeamOptions(beams=beams, max_tokens=model.context)
    begin = tokenizer.begin_id
    assert begin is not None
    with evaluating(model), torch.inference_mode():
        found = translate(model, sources, options, begin_id=begin, end_id=tokenizer.end_id, pad_id=tokenizer.pad_id)
    return [tokenizer.decode(hypotheses[0].ids) for hypotheses in found]


@dataclass
class Translator:
    """A translator with its weights and tokenizer."""

    model: Transformer
    tokenizer: AnyTokenizer


def is_translator(folder: Path) -> bool:
    """Whether a model folder holds a translator."""
    try:
        said = json.loads((folder / MODEL_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("family") == "transformer"


def load_translator(path: Path, device: torch.device) -> Translator:
    """The translator that `path` names, in evaluation mode; see `models.find_model`.

    Raises:
        GroundupError: E-MODEL-006 for another kind of model; what reading and checking its files raises.
    """
    folder = find_model(path)
    if not is_translator(folder):
        raise GroundupError(
            "E-MODEL-006",
            "the model does not translate",
            where=printable(str(path)),
            why="pairs of texts are learned by an encoder and a decoder",
            fix="name a model that was trained on data.kind=pairs",
            exit_code=2,
        )
    tensors, files = checkpoint.load_averaged(folder)
    said = json.loads(files[MODEL_FILE])
    model = Transformer(TransformerOptions.model_validate(said["options"]))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    own: dict[str, Tensor] = {name: tensors[name] for name in tensors}
    checkpoint.strict_key_report(expected, {name: tuple(tensor.shape) for name, tensor in own.items()})
    model.load_state_dict(own)
    return Translator(model.to(device).eval(), Tokenizer.from_json(files[TOKENIZER_FILE].decode()))


def translation_work(recipe: Recipe, folder: Path, *, say: Say) -> TranslationWork:
    """Read the pairs, train the tokenizer on the training side, and encode."""
    device = resolve_device(recipe.hardware.device)
    loaded = load_translator(Path(recipe.init_from), torch.device("cpu")) if recipe.init_from else None
    if loaded is not None:
        known = recipe.model_copy(update={"model": TranslatorOptions()})
        raise_all(list(fits_network(Check(known, Places(str(recipe.init_from))))))
    recipe = resolve_rows(recipe, family="transformer")
    assert isinstance(recipe.data, PairData)
    aside: list[SetAside] = []
    try:
        found = read_parallel(room_options(recipe.data, ParallelOptions), aside)
    finally:
        write_quarantine(folder / "data", aside)
    rows: dict[Side, list[ParallelRow]] = {side: found.side(side) for side in ("train", "validation", "test")}
    if loaded is not None:
        tokenizer, options = loaded.tokenizer, loaded.model.options
    else:
        say("tokenizer: training on both sides of the training pairs")
        texts = [text for row in rows["train"] for text in (row.source, row.target)]
        tokenizer = own_tokenizer(texts, recipe)
        assert isinstance(recipe.model, TranslatorOptions)
        sizes = {name: value for name, value in dict(recipe.model).items() if name != "family"}
        options = TransformerOptions(vocabulary=tokenizer.vocabulary, **sizes)
    longest = min(recipe.data.max_length or options.context, options.context)
    begin = tokenizer.begin_id
    assert begin is not None
    pairs: dict[Side, EncodedPairs] = {}
    for side, of_side in rows.items():
        if not of_side:
            pairs[side] = EncodedPairs([], [], {})
            continue
        pairs[side] = encode_pairs(
            of_side,
            tokenizer.encode,
            begin_id=begin,
            end_id=tokenizer.end_id,
            max_length=longest,
            over_long=recipe.data.over_long,
        )
    card = found.card | {"fit": {side: encoded.fit for side, encoded in pairs.items()}}
    write_card(folder / "data", card)
    return TranslationWork(
        recipe=recipe,
        device=device,
        precision=choose_precision(recipe.hardware.precision, device).name,
        init_from=Path(recipe.init_from) if recipe.init_from else None,
        options=options,
        tokenizer=tokenizer,
        rows=rows,
        pairs=pairs,
        noise=noise_of(recipe.data.augment, tokenizer),
        card=card,
    )
