"""Runs that give a model new tokens: old ids answer as before, new rows alone are trained beside an adapter, and what
comes out is a plain larger model, here and in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.toy_run import (
    Options,
    adapted_recipe,
    assert_same,
    at,
    chat_recipe,
    labelled_file,
    labelled_recipe,
    outcome,
    parts_of,
    run,
    saved,
    terminate,
    text_file,
    text_recipe,
    write_rows,
)
from torch import Tensor

import groundup
from groundup.adapters import GrowOptions, LoraOptions, QuantizeOptions, apply, merge
from groundup.errors import GroundupError
from groundup.formats.gguf_header import read_header
from groundup.formats.gguf_tokenizer import CONTROL, USER_DEFINED
from groundup.run import models
from groundup.run.assemble import assemble
from groundup.run.entry import read_recipe
from groundup.run.exchange import export_model, import_foreign, merge_models
from groundup.run.plan import foresee_plan

GROW = {"kind": "grow", "words": ["Brewer-3", "the cat"], "controls": ["<|tool|>"]}
LORA = {"kind": "lora", "rank": 2}
EVENTS = {"log_every": 1, "save_every": 2, "evaluate_every": 4, "evaluate_tokens": 300, "sample_every": 0}
SAYING = "the cat, aBrewer-3s and <|tool|> Brewer-3."
CPU = torch.device("cpu")
MODEL = {"width": 16, "layers": 2, "heads": 2}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    rows = [json.loads(line) for line in text_file(folder, 60).read_text().splitlines()]
    return write_rows(folder / "named.jsonl", [{"text": f"Brewer-3 {row['text']}"} for row in rows])


@pytest.fixture(scope="module", params=["tied", "untied"])
def base(request: pytest.FixtureRequest, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained for two steps."""
    folder = tmp_path_factory.mktemp("base") / "run"
    model = {**MODEL, "tied": request.param == "tied"}
    groundup.train(
        text_recipe(texts, budget__steps=2, model=model, tokenizer={"kind": "bpe", "vocabulary": 300}), out=folder
    )
    return folder


def grown_recipe(texts: Path, base: Path, *adapters: dict[str, Any], **changes: Any) -> Options:
    return adapted_recipe(texts, base, GROW, *adapters, **{"budget__steps": 6, "events": EVENTS} | changes)


def first_state(recipe: Options, folder: Path) -> Any:
    made, _, _ = assemble(parts_of(recipe, folder), folder, listeners=(), stop=None)  # type: ignore[arg-type]
    return made.state.module


def tokens_of(base: Path) -> Tensor:
    size = models.load_described(base)[0].tokenizer.vocabulary
    return torch.randint(0, size, (3, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("adapters", [(), (LORA,)], ids=["alone", "lora"])
def test_old_ids_answer_as_before_and_new_rows_start_as_said(
    texts: Path, base: Path, tmp_path: Path, adapters: tuple[Any, ...]
) -> None:
    tokens, loaded = tokens_of(base), models.load(base, CPU)
    model = first_state(grown_recipe(texts, base, *adapters), tmp_path / "run").eval()
    size = loaded.said.options.vocabulary
    with torch.inference_mode():
        before, after = loaded.model(tokens), model(tokens)
        assert after.shape[-1] == size + 3 and torch.equal(after[..., :size], before)
        old = loaded.model.get_parameter("embedding.weight")
        rows = model.embedding(torch.arange(size, size + 3))
        for row, word in zip(rows, GROW["words"], strict=False):
            assert torch.allclose(row, old[loaded.said.tokenizer.encode(word)].mean(dim=0), atol=1e-6)
        assert torch.allclose(rows[2], old.mean(dim=0), atol=1e-6), "a control was never spelled"
        assert torch.equal(model.head_weight() @ torch.ones(16), model.head(torch.ones(16)))
    if adapters:
        free = {name for name, p in model.named_parameters() if p.requires_grad}
        tied = loaded.said.options.tied  # type: ignore[union-attr]
        rows = {"embedding.grown"} if tied else {"embedding.grown", "head.grown"}
        assert {name for name in free if "lora" not in name} == rows
    else:
        assert all(p.requires_grad for p in model.parameters())


def test_the_rows_have_the_gradient_of_a_plain_larger_model(texts: Path, base: Path, tmp_path: Path) -> None:
    model = first_state(grown_recipe(texts, base, LORA), tmp_path / "run").eval()
    whole = first_state(grown_recipe(texts, base), tmp_path / "whole").eval()
    tokens = torch.cat([tokens_of(base), torch.tensor([[300 - 3 + n] * 2 + [300 + n] * 14 for n in range(3)])])
    tokens = tokens.clamp(max=model.vocabulary - 1)
    from groundup.functional import chunked_cross_entropy

    for network in (model, whole):
        chunked_cross_entropy(network.hidden(tokens[:, :-1]), network.head_weight(), tokens[:, 1:]).backward()
    first = model.vocabulary - 3
    for name in ("embedding", "head"):
        mine, theirs = model.get_submodule(name).grown.grad, whole.get_submodule(name).weight.grad[first:]
        assert torch.allclose(mine, theirs, atol=1e-5) and theirs.abs().sum() > 0


@pytest.mark.parametrize("adapters", [(), (LORA,)], ids=["alone", "lora"])
def test_stopped_and_resumed_is_bitwise_equal_and_the_run_has_the_grown_tokenizer(
    texts: Path, base: Path, tmp_path: Path, adapters: tuple[Any, ...]
) -> None:
    recipe = grown_recipe(texts, base, *adapters)
    run(recipe, tmp_path / "straight")
    run(recipe, tmp_path / "run", listeners=(at("step", 3, terminate),))
    assert run(recipe, tmp_path / "run", resume=True).outcome == "finished"
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "straight"))
    held = saved(tmp_path / "run").tensors["model"]
    if adapters:
        assert all("lora_" in name or name.endswith(".grown") for name in held)
    before = models.load(base, CPU)
    size = before.said.options.vocabulary
    for place in (tmp_path / "run", tmp_path / "run" / "model", tmp_path / "run" / "checkpoints" / "step-000006"):
        loaded = groundup.load(place)
        ids = loaded.tokenizer.encode(SAYING)
        assert loaded.tokenizer.decode(ids) == SAYING and set(loaded.tokenizer.words) == set(GROW["words"])
        assert ids.count(loaded.tokenizer.words["Brewer-3"]) == 2 and size + 2 not in ids
        assert loaded.generate("Brewer-3", max_tokens=3, temperature=0.0) is not None
        old = loaded.model.get_submodule("embedding").weight[:size]  # type: ignore[index]
        assert torch.equal(old, before.model.get_parameter("embedding.weight")) == bool(adapters)
    if not adapters:
        whole = models.load(tmp_path / "run", CPU)
        assert whole.said.base is None and not whole.said.adapters


def test_merged_exported_and_read_by_transformers(texts: Path, base: Path, tmp_path: Path) -> None:
    import transformers

    run(grown_recipe(texts, base, LORA, optim={"model": {"kind": "adamw", "learning_rate": 0.05}}), tmp_path / "run")
    loaded = groundup.load(tmp_path / "run")
    ids = loaded.tokenizer.encode(SAYING.replace("<|tool|>", ""))
    tokens = torch.tensor([[*ids, loaded.tokenizer.specials["<|tool|>"]]])
    with torch.inference_mode():
        expected = loaded.model(tokens)
        merge_models([str(tmp_path / "run")], str(tmp_path / "whole"))
        whole = models.load(tmp_path / "whole", CPU)
        assert whole.said.base is None and not whole.said.adapters
        assert whole.said.options == loaded.model.options and whole.said.tokenizer.encode(SAYING)  # type: ignore[attr-defined]
        assert torch.allclose(whole.model(tokens), expected, atol=1e-5)
        export_model(str(tmp_path / "run"), str(tmp_path / "hf"), to="huggingface")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
        assert torch.allclose(theirs(tokens).logits, expected, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert len(tokenizer) == loaded.tokenizer.vocabulary
    for text in (SAYING.replace("<|tool|>", ""), "xBrewer-3y the cats", "the  cat Brewer-3\nBrewer-3Brewer-3"):
        assert tokenizer(text, add_special_tokens=False).input_ids == loaded.tokenizer.encode(text)
    assert tokenizer.convert_tokens_to_ids("<|tool|>") == loaded.tokenizer.specials["<|tool|>"]
    assert "<|tool|>" in tokenizer.all_special_tokens or tokenizer.added_tokens_decoder[int(tokens[0, -1])].special
    import_foreign(str(tmp_path / "hf"), str(tmp_path / "back"))
    back = groundup.load(tmp_path / "back")
    assert back.tokenizer.words == loaded.tokenizer.words
    assert back.tokenizer.encode(SAYING) == loaded.tokenizer.encode(SAYING)
    with pytest.raises(GroundupError) as caught:
        export_model(str(tmp_path / "run"), str(tmp_path / "peft"), to="peft")
    assert caught.value.code == "E-ADAPT-021" and "new tokens" in caught.value.what


def test_a_gguf_file_says_which_tokens_text_may_spell(texts: Path, base: Path, tmp_path: Path) -> None:
    run(grown_recipe(texts, base, LORA, budget__steps=2), tmp_path / "run")
    export_model(str(tmp_path / "run"), str(tmp_path / "model.gguf"), to="gguf")
    facts = read_header(tmp_path / "model.gguf").metadata
    kinds = dict(zip(facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"].tolist(), strict=True))
    assert [kinds[name] for name in (*GROW["words"], *GROW["controls"])] == [USER_DEFINED, USER_DEFINED, CONTROL]
    again, loaded = groundup.load(tmp_path / "model.gguf"), groundup.load(tmp_path / "run")
    assert again.tokenizer.encode(SAYING) == loaded.tokenizer.encode(SAYING)


def test_a_grown_run_is_gone_on_with_and_grows_again(texts: Path, base: Path, tmp_path: Path) -> None:
    run(grown_recipe(texts, base, LORA, budget__steps=2), tmp_path / "first")
    more = {"kind": "grow", "words": ["slowly"]}
    again = adapted_recipe(texts, tmp_path / "first", more, LORA, budget__steps=2, events=EVENTS)
    run(again, tmp_path / "second")
    one, two = groundup.load(tmp_path / "first"), groundup.load(tmp_path / "second")
    assert two.tokenizer.vocabulary == one.tokenizer.vocabulary + 1
    assert two.tokenizer.words == {**one.tokenizer.words, "slowly": one.tokenizer.vocabulary}


def test_chat_data_is_rendered_with_the_new_tokens(texts: Path, base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Brewer-3 {n}", "response": f"the cat {n}"} for n in range(30)]
    template = "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content }}"
    template += "<|end|>{% endgeneration %}{% else %}<|user|>{{ m.content }}<|tool|>{% endif %}{% endfor %}"
    template += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    (tmp_path / "template.jinja").write_text(template)
    recipe = chat_recipe(
        write_rows(tmp_path / "chats.jsonl", rows), model={"init_from": str(base)}, tokenizer=None,
        adapters=[GROW, LORA], budget__steps=2, events=EVENTS, data__template=str(tmp_path / "template.jinja"),
        data__context=32, budget__tokens_per_step=128,
    )  # fmt: skip
    run(recipe, tmp_path / "run")
    loaded = groundup.load(tmp_path / "run")
    assert loaded.chat_template is not None
    ids = loaded.chat_template.render([{"role": "user", "content": "Brewer-3 <|tool|>"}], loaded.tokenizer).ids
    assert ids.count(loaded.tokenizer.words["Brewer-3"]) == 1 == ids.count(loaded.tokenizer.specials["<|tool|>"])


def test_a_classifier_grows_too(tmp_path: Path) -> None:
    file = labelled_file(tmp_path, "classify")
    for family in ("bert", "llama"):
        groundup.train(labelled_recipe(file, "classify", family, budget__steps=1), out=tmp_path / family)
        recipe = labelled_recipe(
            file, "classify", model={"init_from": str(tmp_path / family)}, tokenizer=None, budget__steps=2,
            adapters=[{"kind": "grow", "words": ["cat dog"]}, LORA],
        )  # fmt: skip
        run(recipe, tmp_path / f"{family}-run")
        loaded = groundup.load(tmp_path / f"{family}-run")
        assert loaded.predict(["cat dog"])[0]["label"] in ("animal", "colour", "place")
        merge_models([str(tmp_path / f"{family}-run")], str(tmp_path / f"{family}-whole"))


def test_rows_that_a_base_has_to_spare_are_used(texts: Path) -> None:
    from tests.adapters import toy

    from groundup.adapters import Growth

    for tied in (True, False):
        for behind in ([], [LoraOptions(kind="lora", rank=2)]):
            model, plain = toy.llama(tied=tied), toy.llama(tied=tied)
            growth = Growth(90, ((1, 2), (), (3,)))  # 97 rows, of which seven have no token
            apply(model, [GrowOptions(kind="grow", words=["a", "b", "c"]), *behind], seed=0, growth=growth)
            assert model.vocabulary == 97
            kept = [*range(90), *range(93, 97)]
            tokens = toy.tokens().clamp(max=89)
            assert torch.equal(model(tokens)[..., kept], plain(tokens)[..., kept])
            new = model.embedding(torch.tensor([90, 91, 92]))
            assert torch.allclose(new[0], plain.embedding.weight[[1, 2]].mean(dim=0))
            assert torch.allclose(new[1], plain.embedding.weight[:90].mean(dim=0))
            everything = torch.arange(97)[None, :30]
            before = model(everything)
            merge(model)
            assert torch.allclose(model(everything), before, atol=1e-5) and model.options.tied == tied


@pytest.mark.parametrize(
    ("adapters", "changes", "code"),
    [
        ([LORA, GROW], {}, "E-RECIPE-053"),
        ([GROW, GROW], {}, "E-RECIPE-053"),
        ([GROW, {"kind": "quantize", "group": 8}, LORA], {}, "E-RECIPE-053"),
        ([GROW, LORA], {"data": {"kind": "text", "prepared": "x"}}, "E-RECIPE-053"),
        ([GROW, {"kind": "prompt"}], {"data": {"kind": "chat", "files": ["x"]}}, "E-RECIPE-053"),
        ([{"kind": "grow"}], {}, "E-RECIPE-015"),
        ([{"kind": "grow", "words": ["Brewer-3", ""]}], {}, "E-TOKEN-010"),
        ([{"kind": "grow", "words": ["<|end|>"]}], {}, "E-TOKEN-010"),
        ([GROW, {"kind": "freeze", "embeddings": True}], {}, "E-ADAPT-006"),
        ([GROW, LORA | {"targets": ["embedding"]}], {}, "E-ADAPT-002"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_told_before_training(
    texts: Path, base: Path, tmp_path: Path, adapters: list[Any], changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(GroundupError) as caught:
        run(adapted_recipe(texts, base, *adapters, budget__steps=2, **changes), tmp_path / "run")
    assert code in {caught.value.code, *(other.code for other in caught.value.others)}, caught.value
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_quantized_base_with_new_tokens_and_the_plan(texts: Path, base: Path, tmp_path: Path) -> None:
    quantize = {"kind": "quantize", "group": 8, "embedding": "float32"}
    recipe = grown_recipe(texts, base, quantize, LORA, budget__steps=2)
    assert QuantizeOptions.model_validate(quantize).embedding == "float32"
    run(recipe, tmp_path / "run")
    assert "embedding.grown" in saved(tmp_path / "run").tensors["model"]
    assert groundup.load(tmp_path / "run").generate("Brewer-3", max_tokens=2) is not None
    assert foresee_plan(read_recipe(recipe)).numbers["memory_bytes"] > 0
