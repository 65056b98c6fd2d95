"""The parts of the page about answers that are no single labels: numbers, tags of words, what is found, translations.

They draw what results.json holds under `regression`, `tagging`, `retrieval` and `translation`, and compute nothing but
places on the page. What is missing or malformed there is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundup.report import figures
from groundup.report.charts import Scale, interval_bar, widened
from groundup.report.collect import RunRecord
from groundup.report.markup import Child, Markup, join, table, tag
from groundup.report.reading import known, mapping, mappings, text_of
from groundup.report.squares import Line, square

MOST_ROWS = 200
MOST_POINTS = 2000
LONGEST = 400
REGRESSION = {
    "mae": "mean absolute error",
    "rmse": "root of the mean squared error",
    "r2": "R², share of the variance explained",
    "spearman": "rank correlation (Spearman)",
}
TAGGING = {
    "f1": "F1 of entities",
    "precision": "precision of entities",
    "recall": "recall of entities",
    "token_accuracy": "words with the right tag",
}
RETRIEVAL = {
    "mrr_at_10": "mean reciprocal rank among the first 10",
    "recall_at_1": "found as the first",
    "recall_at_5": "found among the first 5",
    "recall_at_10": "found among the first 10",
    "spearman": "rank correlation with people's scores",
}
SYSTEMS = {"beam": "beam search", "greedy": "greedy search", "memory": "translation memory (no model)"}
TRANSLATION = {"chrf": "chrF", "bleu": "BLEU"}

Score = tuple[str, dict[str, Any], str]
"""A name, {value, low, high}, and the scale that it is drawn on; "" draws none."""


def scores_table(caption: str, scores: Sequence[Score], first: str = "metric") -> Markup:
    """Values with their intervals; those of one scale are drawn on one line, so that they can be compared."""
    shown = [score for score in scores if known(score[1].get("value")) is not None]
    spans: dict[str, Scale] = {}
    for scale in {scale for _, _, scale in shown if scale}:
        ends = [known(found.get(key)) for _, found, own in shown if own == scale for key in ("value", "low", "high")]
        values = [end for end in ends if end is not None]
        spans[scale] = Scale(*widened(min(values), max(values)), 3.0, 97.0)
    rows: list[list[Child]] = []
    for name, found, scale in shown:
        value, low, high = (known(found.get(key)) for key in ("value", "low", "high"))
        said = f"{name} {figures.metric(value)}"
        bar = interval_bar(said, None, value, low, high, spans[scale]) if scale and value is not None else None
        between = figures.between(low, high) or figures.MISSING
        rows.append([name, tag("b", figures.metric(value)), between, bar])
    heads = [first, "value", "interval", ""]
    return table(caption, heads, rows, numeric=(1, 2), class_="results classes") if rows else Markup("")


def caption_of(what: str, found: dict[str, Any]) -> str:
    """What was measured, on which data, with which intervals."""
    data, confidence = text_of(found.get("data"))[:80], known(found.get("confidence"))
    caption = what + (f" ({figures.words(data)})" if data else "")
    return caption + (f", with intervals of {figures.percent(confidence)}" if confidence is not None else "")


def headline_of(found: dict[str, Any], titles: dict[str, str], scales: dict[str, str]) -> list[Score]:
    """The scores of a `headline` in the order of `titles`; those without a scale of their own share one."""
    measured = mapping(found.get("headline"))
    return [(title, mapping(measured.get(name)), scales.get(name, "share")) for name, title in titles.items()]


def regression(record: RunRecord, prefix: str = "") -> Markup:
    """Errors of predicted numbers, and each number against the true one; empty without any."""
    found = mapping(record.results.get("regression"))
    caption = caption_of(f"Numbers predicted for {figures.count(known(found.get('rows')))} rows", found)
    scores = headline_of(found, REGRESSION, {"mae": "error", "rmse": "error"})
    notes = found.get("notes") if isinstance(found.get("notes"), list) else []
    return join(
        [
            scores_table(caption, scores),
            *(tag("p", text_of(note)[:LONGEST], class_="quiet small") for note in (notes or [])[:20]),
            against_truth(found.get("residuals"), f"{prefix}regression-true"),
        ]
    )


def against_truth(residuals: object, identifier: str) -> Markup:
    """Predicted against true numbers; `residuals` are [predicted, predicted - true]."""
    points: list[tuple[float, float]] = []
    for pair in residuals[:MOST_POINTS] if isinstance(residuals, list) else []:
        ends = [known(value) for value in pair] if isinstance(pair, list) else []
        if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
            points.append((ends[0] - ends[1], ends[0]))
    if len(points) < 2:
        return Markup("")
    values = [value for point in points for value in point]
    span = widened(min(values), max(values))
    dots = Line("", "main", [x for x, _ in points], [y for _, y in points], [2.2] * len(points), joined=False)
    note = "on the diagonal, a prediction is right"
    drawn = square(identifier, "Predicted against true", note, ("true", "predicted"), [dots], span=span, rising=True)
    return tag("div", drawn, class_="charts squares")


def tagging(record: RunRecord) -> Markup:
    """How many of the entities were found, in all and of each type; empty without any."""
    found = mapping(record.results.get("tagging"))
    sentences, words = (figures.count(known(found.get(name))) for name in ("sentences", "tokens"))
    rows: list[list[Child]] = [
        [
            text_of(one.get("type"))[:LONGEST],
            *(figures.count(known(one.get(name))) for name in ("support", "predicted")),
            *(figures.metric(known(one.get(name))) for name in ("precision", "recall", "f1")),
        ]
        for one in mappings(found.get("per_type"))[:MOST_ROWS]
    ]
    heads = ["type", "true", "predicted", "precision", "recall", "F1"]
    return join(
        [
            scores_table(
                caption_of(f"Tags of {words} words in {sentences} sentences", found), headline_of(found, TAGGING, {})
            ),
            table("Each type of entity", heads, rows, numeric=range(1, 6)) if rows else None,
        ]
    )


def retrieval(record: RunRecord) -> Markup:
    """How soon the right partner of a text is found among all; empty without any."""
    found = mapping(record.results.get("retrieval"))
    caption = caption_of("Finding the partner of each text among all others", found)
    return scores_table(caption, headline_of(found, RETRIEVAL, {}))


def translation(record: RunRecord) -> Markup:
    """Scores of each way to translate beside a memory without a model, then single sentences; empty without any."""
    found = mapping(record.results.get("translation"))
    scores = {name: mapping(value) for name, value in mapping(found.get("scores")).items()}
    names = [name for name in SYSTEMS if name in scores]
    rows: list[Score] = [
        (f"{title}, {SYSTEMS[name]}", mapping(mapping(scores[name].get("headline")).get(metric)), metric)
        for metric, title in TRANSLATION.items()
        for name in names
    ]
    confidence = next((scores[name].get("confidence") for name in names), None)
    about = {"data": found.get("data"), "confidence": confidence}
    caption = caption_of(f"Translations of {figures.count(known(found.get('sentences')))} sentences", about)
    note = (
        "chrF and BLEU from 0 to 100, higher is better. The memory looks up the most similar training sentence and "
        "answers with its translation: what a model has to beat."
    )
    drawn = scores_table(caption, rows, "")
    return join([drawn, tag("p", note, class_="quiet small") if drawn else None, translations(found)])


def translations(found: dict[str, Any]) -> Markup:
    """Single sentences in all translations."""
    examples = mappings(found.get("examples"))[:MOST_ROWS]
    columns = {"source": "source", "reference": "reference", **SYSTEMS, "memory": "translation memory"}
    names = [name for name in columns if any(text_of(one.get(name)) for one in examples)]
    rows: list[list[Child]] = [
        [tag("span", text_of(one.get(name))[:LONGEST] or "(nothing)", dir="auto") for name in names] for one in examples
    ]
    heads = [columns[name] for name in names]
    return table("The first sentences", heads, rows, class_="results texts") if names else Markup("")
