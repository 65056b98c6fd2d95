"""The verbs of the command line: their names, arguments and where their functions are.

Only the standard library is imported here, and a verb's module only when that verb was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from groundup.cli.arguments import Parser, choice, number, shares, whole
from groundup.errors import printable

TOKENIZER_KINDS = ("bpe", "unigram", "wordpiece", "char", "byte")
EXPORTS = ("huggingface", "gguf", "onnx", "safetensors", "peft")
EXPLAINING = ("integrated_gradients", "saliency", "occlusion")
PRECISIONS = ("float32", "bfloat16", "int8", "int4")
EXPORT_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")


class Verb(NamedTuple):
    """One verb: its function as "module:name", one line about it, and what adds its arguments to a parser."""

    target: str
    summary: str
    arguments: Callable[[Parser], None]


def recipe_path(text: str) -> str:
    """The type of RECIPE: an override in its place means that the recipe was forgotten."""
    if "=" in text and not text.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f'is "{printable(text, 80)}", an override; the recipe comes first')
    return text


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")


def _recipe(parser: Parser, *, required: bool = True) -> None:
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs=None if required else "?",
        # Where no recipe is needed, overrides may stand in its place.
        type=recipe_path if required else str,
        help="the recipe, a YAML file",
    )
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="fields to override, such as budget.minutes=10",
    )


def _files(parser: Parser, *, required: bool = True) -> None:
    parser.add_argument("--files", metavar="FILE", nargs="+", required=required, help="files, folders and patterns")


def _out(parser: Parser, text: str, *, required: bool = False) -> None:
    parser.add_argument("--out", metavar="DIR", required=required, help=text)


def _quickstart(parser: Parser) -> None:
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=number(above=0),
        default=6.0,
        help="work to spend (default 6)",
    )
    parser.add_argument("--text", metavar="PATH", help="your own text instead of the Python documentation")
    parser.add_argument("--code", action="store_true", help="learn from the standard library's sources too")
    _out(parser, "where everything goes (default: quickstart)")


def _new(parser: Parser) -> None:
    parser.add_argument("kind", metavar="KIND", help="what the recipe is for")
    parser.add_argument("--out", metavar="FILE", help="where to write it (default: KIND.yaml)")


def _plan(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--price", metavar="P", type=number(least=0), help="cost of one hour on this machine")
    parser.add_argument("--fix", action="store_true", help="change what does not fit and write the new recipe")
    _json(parser)


def _prepare(parser: Parser) -> None:
    _recipe(parser, required=False)
    _files(parser, required=False)
    _out(parser, "the folder of the prepared data")
    parser.add_argument("--workers", metavar="N", type=whole(1, 4096), help="processes (default: all cores)")
    parser.add_argument("--tokenizer", metavar="DIR", help="with --files: tokenize with this tokenizer")
    _json(parser)


def _data_check(parser: Parser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="files, folders and patterns")
    _json(parser)


def _data_show(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--rows", metavar="N", type=whole(1, 10_000), default=3, help="rows to show (default 3)")
    parser.add_argument("--augment", action="store_true", help="also as training changes them; of images with --out")
    parser.add_argument("--out", metavar="FILE", help="of images: write a sheet of training images, FILE.png")
    _json(parser)


def _tokenizer_train(parser: Parser) -> None:
    _files(parser)
    parser.add_argument(
        "--vocab", metavar="N", type=whole(1, 1_000_000), help="number of tokens (not for char and byte)"
    )
    parser.add_argument("--kind", metavar="|".join(TOKENIZER_KINDS), type=choice(*TOKENIZER_KINDS), default="bpe")
    parser.add_argument("--mask", action="store_true", help="with a token for hidden ones (masked pretraining)")
    _out(parser, "the folder of the tokenizer", required=True)
    _json(parser)


def _tokenizer_inspect(parser: Parser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder with tokenizer.json, or that file")
    _files(parser)
    _json(parser)


def _train(parser: Parser) -> None:
    _recipe(parser)
    _out(parser, "the run folder (default: runs/ and the recipe's name)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint")
    parser.add_argument("--accept-changes", action="store_true", help="resume although fields of the recipe changed")
    _json(parser)


def _model(parser: Parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a run, checkpoint or model folder, a Hugging Face folder or a .gguf file"
    )


def _evaluate(parser: Parser) -> None:
    _model(parser)
    _files(parser, required=False)
    add = parser.add_argument
    add("--metric", metavar="NAME", nargs="+", help="which metrics (default: all that fit the files)")
    add("--against", metavar="MODEL", help="a second model: better, worse or within noise")
    add("--columns", metavar=("SOURCE", "TARGET"), nargs=2, help="of a translator's files: names, or numbers from 1")
    add("--episodes", metavar="N", type=whole(1, 1_000_000), help="of a model that acts: play so many, without files")
    add("--environment", metavar="ID", help="with --episodes: another environment than that of training")
    add("--sampled", action="store_true", help="with --episodes: draw actions as the model says, not the best ones")
    add("--seed", metavar="S", type=whole(0, 2**31 - 1), help="with --episodes: of the episodes (default 0)")
    _json(parser)


def _sampling(parser: Parser) -> None:
    # Ranges and defaults are those of the sampling options; None is "not given".
    add = parser.add_argument
    add("--max-tokens", metavar="N", type=whole(), help="the longest answer, in tokens (default 256)")
    add("--temperature", metavar="T", type=number(), help="0 takes the likeliest token (default)")
    add("--top-k", metavar="K", type=whole(), help="draw from the K likeliest; 0 is off (default)")
    add("--top-p", metavar="P", type=number(), help="draw from the likeliest that reach P; 1 is off (default)")
    add(
        "--min-p",
        metavar="P",
        type=number(),
        help="drop what is less likely than this share of the likeliest",
    )
    add(
        "--repetition-penalty",
        metavar="R",
        type=number(),
        help="weaken tokens already there; 1 is off (default)",
    )
    add("--stop", metavar="TEXT", nargs="+", help="texts that end the answer")
    add("--seed", metavar="S", type=whole(), help="seed of the draws (default 0)")
    add(
        "--precision", type=choice(*PRECISIONS),
        help="write on weights packed so: float32, bfloat16, int8 or int4 (faster, on a CPU); not given: as they are",
    )  # fmt: skip


def _generate(parser: Parser) -> None:
    _model(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="the text to go on from")
    _sampling(parser)
    parser.add_argument("--out", metavar="PATH", help="of a model that draws images: FILE.png, one sheet, or a folder")
    parser.add_argument("--count", metavar="N", type=whole(1, 100_000), help="with --out: images (default 16)")
    parser.add_argument("--label", metavar="NAME", help="with --out: what to draw, if the model was told labels")
    _json(parser)


def _chat(parser: Parser) -> None:
    _model(parser)
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    _sampling(parser)


def _serve(parser: Parser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="*", help="what is served: paths, or NAME=PATH")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    parser.add_argument("--port", metavar="N", type=whole(0, 65535), default=8000, help="default 8000; 0: a free one")
    parser.add_argument("--key-file", metavar="FILE", help="keys that may ask, one a line; needed beyond this machine")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="the runs that the page shows (default: runs)")
    parser.add_argument("--data", metavar="DIR", action="append", default=[], help="one more folder of prepared data")
    parser.add_argument(
        "--precision", type=choice(*PRECISIONS), default="float32",
        help="of the weights of language models on a CPU: float32 (default), bfloat16, int8 or int4",
    )  # fmt: skip
    parser.add_argument("--rows", metavar="N", type=whole(1, 256), default=8, help="answers at once (default 8)")
    parser.add_argument("--waiting", metavar="N", type=whole(1, 10_000), default=64, help="answers that may wait")
    parser.add_argument(
        "--cache-tokens", metavar="N", type=whole(64, 10_000_000), default=16384,
        help="positions that all answers of a model may hold in memory (default 16384)",
    )  # fmt: skip
    parser.add_argument("--memory", metavar="GIB", type=number(above=0), help="for the files of all loaded models")
    parser.add_argument("--draft", metavar="MODEL", help="a smaller model with the same tokenizer, to guess ahead")
    parser.add_argument("--no-speculation", action="store_true", help="never guess tokens ahead")
    parser.add_argument("--strict", action="store_true", help="refuse unknown fields of requests")
    parser.add_argument("--allow-host", metavar="NAME", action="append", default=[], help="one more Host name")
    parser.add_argument(
        "--allow-origin", metavar="ORIGIN", action="append", default=[], help="one more site whose pages may ask"
    )  # fmt: skip
    _json(parser)


def _report(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, or a folder whose folders are stages of one")
    parser.add_argument("--title", metavar="TEXT", default="", help="what the report is called")
    _json(parser)


def _runs(parser: Parser) -> None:
    parser.add_argument("folder", metavar="DIR", nargs="?", default=".", help="where to look (default: here)")
    parser.add_argument("--compare", metavar="RUN", nargs=2, help="two runs: recipe differences and metrics")
    _json(parser)


def _verify(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", help="a run, a checkpoint, a model or prepared data")
    _json(parser)


def _explain(parser: Parser) -> None:
    parser.add_argument("code", metavar="CODE", nargs="?", help="such as E-RECIPE-007; without it, all codes")
    _json(parser)


def _import(parser: Parser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="a Hugging Face folder, a .gguf file, a llama2.c checkpoint, or hf:ORG/NAME"
    )
    _out(parser, "the model folder (default: models/ and the source's name)")
    parser.add_argument("--base", metavar="MODEL", help="for a PEFT adapter folder: the model it belongs to")
    _json(parser)


def _inspect(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", help="a model in any format; nothing in it is run")
    _json(parser)


def _merge(parser: Parser) -> None:
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="a model with adapters; or several of one shape, to average"
    )
    parser.add_argument("--weights", metavar="W", nargs="+", type=number(), help="share of each (default: equal)")
    _out(parser, "the folder of the merged model", required=True)
    _json(parser)


def _export(parser: Parser) -> None:
    _model(parser)
    parser.add_argument("--to", metavar="|".join(EXPORTS), type=choice(*EXPORTS), required=True, help="the format")
    parser.add_argument(
        "--dtype", metavar="|".join(EXPORT_TYPES), type=choice(*EXPORT_TYPES), default="f32", help="(default f32)"
    )
    _out(parser, "the file or folder to write", required=True)
    _json(parser)


def _predict(parser: Parser) -> None:
    _model(parser)
    _files(parser)
    parser.add_argument("--text", metavar="COLUMN", help="the column with the text (default: found by its name)")
    parser.add_argument("--out", metavar="FILE", help="write the rows here as JSON lines (default: print them)")
    _json(parser)


def _cross_validate(parser: Parser) -> None:
    _recipe(parser)
    add = parser.add_argument
    add("--folds", metavar="K", type=whole(2, 10_000), default=5, help="parts that each test one model (default 5)")
    add("--repeats", metavar="R", type=whole(1, 1000), default=1, help="divide anew so often (default 1)")
    add("--sizes", metavar="S,S", type=shares, default=(), help="also train on shares of the rows: 0.1,0.3,1.0")
    add("--settings", metavar="FILE.yaml", help="lists of overrides, of which each fold chooses one by itself")
    add("--find-label-noise", action="store_true", help="write suspects.csv: rows whose label is probably wrong")
    _out(parser, "where the runs go (default: runs/ and the recipe's name with -folds)")
    _json(parser)


def _explain_prediction(parser: Parser) -> None:
    _model(parser)
    add = parser.add_argument
    add("--input", metavar="FILE", help="rows, texts or images, of which --row is explained")
    add("--row", metavar="N", type=whole(1), help="with --input: which one, from 1 (default 1)")
    add("--column", metavar="NAME", help="with --input: the column with the text (default: found by its name)")
    add("--text", metavar="TEXT", help="the text to explain")
    add("--image", metavar="FILE", help="the image to explain")
    add("--label", metavar="NAME", help="what is explained (default: the likeliest label)")
    add("--method", metavar="|".join(EXPLAINING), type=choice(*EXPLAINING), default=EXPLAINING[0])
    add("--steps", metavar="N", type=whole(1, 100_000), help="of integrated gradients (default 50)")
    add("--out", metavar="FILE.html", help="write a page with the input in colours")
    _json(parser)


def _find_lr(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--steps", metavar="N", type=whole(10, 10_000), default=60, help="rates to try (default 60)")
    _json(parser)


def _profile(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--steps", metavar="N", type=whole(1, 1000), default=5, help="steps to profile (default 5)")
    parser.add_argument("--out", metavar="FILE.html", help="the picture (default: profile-NAME.html)")
    parser.add_argument("--trace", metavar="FILE.json", help="the profiler's own file too, for Perfetto")
    _json(parser)


VERBS: dict[str, Verb] = {
    "quickstart": Verb("groundup.cli.quickstart:quickstart", "the whole life of a model, in minutes", _quickstart),
    "new": Verb("groundup.cli.new:new", "write a recipe to start from", _new),
    "plan": Verb("groundup.cli.plan:plan", "memory, time and disk of a recipe, without training", _plan),
    "prepare": Verb("groundup.cli.prepare:prepare", "read, clean, deduplicate, split and tokenize text", _prepare),
    "data check": Verb(
        "groundup.cli.data_check:check", "what is in data files, and what is wrong with it", _data_check
    ),
    "data show": Verb("groundup.cli.data_show:show", "the rows a recipe trains on, with ids and mask", _data_show),
    "tokenizer train": Verb("groundup.cli.tokenizer:train", "learn a tokenizer from text", _tokenizer_train),
    "tokenizer inspect": Verb("groundup.cli.tokenizer:inspect", "how well a tokenizer fits a text", _tokenizer_inspect),
    "train": Verb("groundup.cli.train:train", "train what a recipe says, or go on with it", _train),
    "cross-validate": Verb(
        "groundup.cli.cross_validate:cross_validate", "train and measure a recipe on every fold", _cross_validate
    ),
    "profile": Verb("groundup.cli.profile:profile", "where the time of a training step goes", _profile),
    "find-lr": Verb("groundup.cli.find_lr:find_lr", "try learning rates on a recipe for a moment", _find_lr),
    "import": Verb("groundup.cli.import_model:import_model", "bring a model from elsewhere in", _import),
    "inspect": Verb("groundup.cli.inspect:inspect", "what is in a model of any format; runs nothing", _inspect),
    "merge": Verb("groundup.cli.merge:merge", "fold adapters into their base, or average models", _merge),
    "export": Verb("groundup.cli.export:export", "write a model for other tools, and prove it", _export),
    "evaluate": Verb("groundup.cli.evaluate:evaluate", "measure a model, or compare two", _evaluate),
    "generate": Verb("groundup.cli.generate:generate", "continue a text, or draw images", _generate),
    "predict": Verb(
        "groundup.cli.predict:predict", "labels, numbers, vectors or translations for the rows of files", _predict
    ),
    "explain-prediction": Verb(
        "groundup.cli.explain_prediction:explain_prediction",
        "what the answer to one input rests on",
        _explain_prediction,
    ),
    "chat": Verb("groundup.cli.chat:chat", "talk with a model", _chat),
    "serve": Verb("groundup.cli.serve:serve", "models behind an OpenAI-compatible server, with a page", _serve),
    "report": Verb("groundup.cli.report:report", "write the report of a run", _report),
    "runs": Verb("groundup.cli.runs:runs", "list the runs of a folder, or compare two", _runs),
    "verify": Verb("groundup.cli.verify:verify", "whether a run or a model is whole, file by file", _verify),
    "doctor": Verb("groundup.cli.doctor:doctor", "what this machine offers, measured and tested", _json),
    "explain": Verb("groundup.cli.explain:explain", "what an error code means", _explain),
}
