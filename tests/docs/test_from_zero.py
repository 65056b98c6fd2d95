"""The chapters of docs/from-zero keep their word: what they print is what Python prints, every number is computed
again, every quoted line of code stands where they say, and both languages show the same.

A number with a decimal point, an exponent or four digits counts as a claim. It must be printed or written by a line of
the page that runs here, be worked out in `CLAIMS`, or stand in a recipe that the page names.
"""

from __future__ import annotations

import ast
import doctest
import importlib.util
import itertools
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/from-zero"
CHAPTERS = sorted(path.stem for path in FOLDER.glob("[0-9][0-9]-*.md") if not path.name.endswith(".zh-CN.md"))
PAGES = [*CHAPTERS, "README", "common-mistakes"]
LANGUAGES = (".md", ".zh-CN.md")

RECIPES = (
    "mnist_mlp", "breast_cancer_logistic", "diabetes_linear", "mnist_cnn", "mnist_resnet", "mnist_lstm", "mnist_vit",
    "tatoeba_transformer", "bert_classify", "shakespeare_char", "smollm2_lora", "counters_dqn", "cartpole_ppo",
    "mnist_vae", "mnist_gan",
)  # fmt: skip
"""What the path must lead to, all of it."""

TOPICS = (
    "neuron", "gradient", "backpropagation", "optimizers", "regularisation", "cnn", "rnn", "attention", "transformer",
    "bert", "gpt", "fine-tuning", "reinforcement-learning", "making-images",
)  # fmt: skip

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTE = re.compile(
    r"\[`([\w/]+\.py):([\w.]+)`\]\(\.\./\.\./src/groundup/([\w/]+\.py)\)\n\n```python\n(.*?)^```$", re.M | re.S
)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
CLAIM = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d*\.\d+(?:e-?\d+)?|\d+e-?\d+|\d{4,})")
NUMBER = re.compile(r"\d+(?:,\d{3})+|\d*\.?\d+(?:e[-+]?\d+)?")
MISTAKES = {".md": "### Mistake: ", ".zh-CN.md": "### 错误："}
PARTS = {
    ".md": ("**What goes wrong.**", "**How to see it.**", "**What is right.**"),
    ".zh-CN.md": ("**哪里错了。**", "**怎么发现。**", "**正确做法。**"),
}


def read(page: str, language: str = ".md") -> str:
    return (FOLDER / (page + language)).read_text(encoding="utf-8")


def fences(text: str, *languages: str) -> list[tuple[str, str]]:
    return [(kind, lines) for kind, lines in FENCE.findall(text) if kind in languages]


def value(number: str) -> float:
    return float(number.replace(",", ""))


def anchor(heading: str) -> str:
    """The name that a heading has in a link, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


def rounded(numbers: list[float]) -> list[float]:
    return [round(number, 6) for number in numbers]


def shown(numbers: list[float]) -> str:
    """Numbers as the worked example writes them."""
    return "(" + ", ".join(f"{number:g}" for number in rounded(numbers)) + ")"


def layer(W: list[list[float]], x: list[float], b: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(row, x)) + constant for row, constant in zip(W, b)]


def worked_example() -> list[str]:
    """Every value of the example in chapter 3, from its three inputs, without torch."""
    x, y, b, rate = [1.0, 2.0, 3.0], [1.0, 0.0, 1.0], [0.1, 0.2, 0.3], 0.1
    W = [[0.1, 0.2, 0.3] for _ in range(3)]
    z = layer(W, x, b)
    a = [max(0.0, v) for v in z]
    halves = [(t - v) ** 2 for t, v in zip(y, a)]
    delta = [(v - t) * (1.0 if pre > 0 else 0.0) for t, v, pre in zip(y, a, z)]
    slope = [[d * v for v in x] for d in delta]
    W = [[w - rate * s for w, s in zip(*rows)] for rows in zip(W, slope)]
    b = [constant - rate * d for constant, d in zip(b, delta)]
    z_next = layer(W, x, b)
    a_next = [max(0.0, v) for v in z_next]
    halves_next = [(t - v) ** 2 for t, v in zip(y, a_next)]
    scale = sum(v * v for v in x) + 1
    assert rounded([1 - rate * 2 / 3 * scale]) == [0.0]  # the mean of squares: the same step lands on y
    return [
        f"½ ({' + '.join(f'{v:g}' for v in rounded(halves))})",
        f"½ ({' + '.join(f'{v:g}' for v in rounded(halves_next))})",
        *(shown(values) for values in (z, a, delta, b, z_next, a_next)),
        "  ".join(map(shown, slope)),
        "  ".join(map(shown, W)),
        *(f"   {round(sum(values) / 2, 6):g}\n" for values in (halves, halves_next)),
        f"1 − {rate:g} · {scale:g} = {round(1 - rate * scale, 6):g}",
        f"2/{scale:g} = {2 / scale:.4f}",
    ]


CLAIMS: dict[str, Callable[[], list[str]]] = {
    "03-backpropagation": lambda: [*worked_example(), f"{0.25**10:.1e}".replace("e-0", "e-")],
    "04-optimizers": lambda: [f"{2 / (1 + 4 + 9 + 1):.4f}"],
    "06-cnn": lambda: [f"64 · 28 = {64 * 28}"],
    "10-bert": lambda: [f"{9 / 10}"],  # nine times out of ten
}
"""What a page says and no line of it prints, worked out here; each text must stand on the page."""


def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("from_zero_pictures", FOLDER / "pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quotations(page: str) -> list[tuple[str, str, list[str]]]:
    """File, function and lines of each quoted piece of code."""
    found = []
    for said, name, path, lines in QUOTE.findall(read(page)):
        assert said == path, f"{page}: the link of {said} leads to {path}"
        found.append((path, name, [line.strip() for line in lines.splitlines()]))
    return found


def definition(path: str, name: str) -> list[str]:
    """The lines of a function, method or constant of the package, without what is around them."""
    source = (ROOT / "src/groundup" / path).read_text(encoding="utf-8")
    nodes: list[ast.stmt] = list(ast.parse(source).body)
    for depth, part in enumerate(name.split(".")):
        wanted = [node for node in nodes if part in names(node)]
        assert len(wanted) == 1, f"{path} has {len(wanted)} of {name}"
        node = wanted[0]
        nodes = node.body if isinstance(node, ast.ClassDef) and depth + 1 < len(name.split(".")) else []
    return [line.strip() for line in source.splitlines()[node.lineno - 1 : node.end_lineno]]


def names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def recipes_named(text: str) -> set[str]:
    return set(re.findall(r"recipes/(\w+)\.yaml", text)) | (set(re.findall(r"`(\w+)`", text)) & set(RECIPES))


def known(page: str) -> set[float]:
    """Every number that the page, `CLAIMS` or a recipe that it names accounts for."""
    text = read(page)
    sources = [lines for _, lines in fences(text, "pycon", "sh", "python")]
    sources += [(ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8") for name in recipes_named(text)]
    sources += CLAIMS[page]() if page in CLAIMS else []
    return {value(number) for source in sources for number in NUMBER.findall(source)}


def test_every_topic_has_a_chapter() -> None:
    assert tuple(chapter[3:] for chapter in CHAPTERS) == TOPICS


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_show_the_same(page: str) -> None:
    english, chinese = (read(page, language) for language in LANGUAGES)
    assert fences(english, "python", "pycon", "sh") == fences(chinese, "python", "pycon", "sh")
    headings = [re.findall(r"^#+ ", FENCE.sub("", text), re.M) for text in (english, chinese)]
    assert headings[0] == headings[1]
    drawn = [[CLAIM.findall(lines) for _, lines in fences(text, "text")] for text in (english, chinese)]
    assert drawn[0] == drawn[1]
    links = [[link.partition("#")[0] for link in LINK.findall(FENCE.sub("", text))] for text in (english, chinese)]
    assert links[0][0] == f"{page}.zh-CN.md" and links[1][0] == f"{page}.md"  # each leads to the other
    local = [link.replace(".md", ".zh-CN.md") if (FOLDER / link).parent == FOLDER else link for link in links[0][1:]]
    assert local == links[1][1:]
    assert sorted(map(value, CLAIM.findall(english))) == sorted(map(value, CLAIM.findall(chinese)))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_chapter_prints_is_what_python_prints(chapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(lines for _, lines in fences(read(chapter), "pycon"))
    test = doctest.DocTestParser().get_doctest(lines, {"__name__": "chapter"}, chapter, f"{chapter}.md", 0)
    assert test.examples
    said: list[str] = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        monkeypatch.setattr(sys, "displayhook", sys.__displayhook__)
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert "".join(said) == ""


@pytest.mark.parametrize("page", [*CHAPTERS, "README"])
def test_every_number_is_accounted_for(page: str) -> None:
    if page == "README":
        accounted = {number for chapter in CHAPTERS for number in known(chapter)}
    else:
        accounted = known(page)
    text = re.sub(r"^```(?:pycon|sh|python)\n.*?^```$", "", read(page), flags=re.M | re.S)
    assert [number for number in CLAIM.findall(text) if value(number) not in accounted] == []


def test_the_overview_repeats_numbers_of_the_chapters() -> None:
    said = {value(number) for chapter in CHAPTERS for number in CLAIM.findall(read(chapter))}
    assert [number for number in CLAIM.findall(read("common-mistakes")) if value(number) not in said] == []


@pytest.mark.parametrize(("page", "language"), list(itertools.product(CLAIMS, LANGUAGES)))
def test_what_is_worked_out_here_stands_on_the_page(page: str, language: str) -> None:
    text = read(page, language)
    assert [claim for claim in CLAIMS[page]() if claim not in text] == []


def test_the_search_for_numbers_finds_what_it_looks_for() -> None:
    said = "of 100, 0.552 and .965 at 9.1e-5: 60,956,672 in 1792×28, E-DATA-101, not 3"
    assert CLAIM.findall(said) == ["0.552", ".965", "9.1e-5", "60,956,672", "1792"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_quoted_line_stands_in_the_function_it_names(chapter: str) -> None:
    found = quotations(chapter)
    assert len(found) == len(fences(read(chapter), "python")) >= 1  # no block without a source
    for path, name, lines in found:
        source = definition(path, name)
        missing = [line for line in lines if line not in source]
        assert not missing, f"{path}:{name}"


def test_every_recipe_is_named_and_exists() -> None:
    named = set().union(*(recipes_named(read(chapter)) for chapter in CHAPTERS))
    assert set(RECIPES) <= named
    assert sorted(name for name in named if not (ROOT / f"recipes/{name}.yaml").is_file()) == []
    assert set(RECIPES) <= recipes_named(read("README"))


@pytest.mark.parametrize(("chapter", "language"), list(itertools.product(CHAPTERS, LANGUAGES)))
def test_every_mistake_has_its_three_parts_and_a_line_in_the_overview(chapter: str, language: str) -> None:
    sections = re.split(r"^###? ", FENCE.sub("", read(chapter, language)), flags=re.M)
    mistakes = [part for part in sections if part.startswith(MISTAKES[language].lstrip("# "))]
    assert mistakes
    overview = LINK.findall(read("common-mistakes", language))
    for section in mistakes:
        assert all(part in section for part in PARTS[language]), section.splitlines()[0]
        assert f"{chapter}{language}#{anchor(section.splitlines()[0])}" in overview


def test_the_pictures_are_those_that_the_script_draws() -> None:
    drawn = pictures().PICTURES
    assert sorted(drawn) == sorted(path.name for path in (FOLDER / "images").iterdir())
    for name, draw in drawn.items():
        assert (FOLDER / "images" / name).read_text(encoding="utf-8") == draw()
