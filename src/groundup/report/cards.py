"""The data card, the token ledger and the model card of the page.

A ledger is shown with its sum, so that a reader sees that nothing was lost. Card fields that this file does
not know are listed as they are: a card from a newer version still shows everything it holds.
"""

from __future__ import annotations

from typing import Any

from groundup.report import figures
from groundup.report.charts import stacked_bar
from groundup.report.collect import RunRecord
from groundup.report.markup import Child, Markup, details, join, pairs, table, tag
from groundup.report.reading import flatten, known, mapping, mappings, text_of
from groundup.report.summary import TOKEN_PARTS, counted

INTENDED = "Learning, research and experiments on {} of the kind it was trained on."
INPUTS = {
    "labelled": "rows",
    "table": "rows",
    "images": "images",
    "pairs": "sentences",
    "environment": "environments",
    "game": "games",
}
"""What a model takes or makes, by the kind of its data; text where none is named."""
ANSWERS = "it answers whatever it is given, also what is like nothing in its data, and does not say when it is lost"
CANNOT = {
    "labelled": ANSWERS,
    "table": ANSWERS,
    "images": ANSWERS,
    "made": "it makes images like those it was shown, and nothing else",
    "pairs": "it can write a fluent translation that says something else",
    "game": "it plays what won against itself; positions that it never met may be judged wrongly",
    "environment": "it does what earned rewards where it learned, which need not be what was meant, nor work elsewhere",
}
"""What a model cannot do, by the kind of its data."""
TOKEN_MEANING = {
    "trained": "targets that a gradient came from",
    "masked": "read as context, not learned from",
    "padded": "filled up to the length of the batch",
    "cut": "left out because the row was too long",
}
LEDGERS = ("ledger", "rows", "images")
MOST_ROWS = 200
SHORT = 6


def token_ledger(summary: dict[str, Any]) -> Markup:
    """Tokens seen = trained + masked + padded + cut, drawn and summed; of rows only the parts that there are."""
    ledger, unit = summary["ledger"]["tokens"], summary["unit"]
    seen = ledger["seen"]
    if seen is None:
        return Markup("")
    parts = [(name, ledger[name]) for name in TOKEN_PARTS if ledger[name] is not None]
    meaning = TOKEN_MEANING
    if unit != "tokens":
        parts = [(name, value) for name, value in parts if value or name == "trained"]
        meaning = meaning | {"trained": "that a gradient came from, each as often as it was learned from"}
    rows: list[list[Child]] = [
        [
            tag("span", name, class_=f"key part-{index}"),
            meaning[name],
            figures.count(value),
            figures.percent(value / seen if seen else None),
        ]
        for index, (name, value) in enumerate(parts)
    ]
    rows.append([tag("b", "seen"), balance(ledger["balanced"]), tag("b", figures.count(seen)), ""])
    title = f"{figures.capital(unit)} seen: " + ", ".join(f"{name} {figures.count(value)}" for name, value in parts)
    caption = "Token ledger" if unit == "tokens" else f"Ledger of {counted(summary)}"
    drawn = stacked_bar(title, parts) if len(parts) > 1 else None
    return join([drawn, table(caption, [unit, "", "count", "share"], rows, numeric=(2, 3))])


def balance(balanced: bool | None) -> Markup:
    """Whether the parts of a ledger add up to its whole."""
    if balanced is None:
        return tag("span", "some parts were not recorded", class_="quiet")
    return tag("span", "adds up" if balanced else "does not add up", class_=f"badge {'good' if balanced else 'bad'}")


def data_card(record: RunRecord, summary: dict[str, Any]) -> Markup:
    """The ledgers of preparation, the set-aside rows, and every other field of the cards."""
    cards = cards_of(record)
    recorded = mapping(summary["ledger"]["data"])
    ledgers = {name: ledger_of(card) for name, card in cards.items()}
    if not any(by_unit(ledger) for ledger in ledgers.values()):
        single = ledger_of(recorded)
        ledgers = {"": single} if by_unit(single) else {name: ledger_of(mapping(v)) for name, v in recorded.items()}
    parts: list[Child] = [rows_ledger(ledger, name) for name, ledger in ledgers.items()]
    if not any(parts) and recorded:
        caption = "Environment" if "environment" in recorded else "Ledger of preparation"
        parts.append(field_table(caption, recorded.get("environment", recorded)))
    parts.append(quarantine(record))
    for source, card in cards.items():
        for name, value in card.items():
            if name not in LEDGERS and isinstance(value, dict | list) and value:
                parts.append(nested(f"{source} {figures.words(name)}".strip(), value))
        scalars = {name: value for name, value in card.items() if not isinstance(value, dict | list)}
        if scalars:
            parts.append(field_table(f"Also on the card {source}".strip(), scalars))
    return join(parts)


def cards_of(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The run's own data cards, else those of its first stage that has any."""
    return record.cards or next((stage.cards for stage in record.stages if stage.cards), {})


def ledger_of(card: dict[str, Any]) -> dict[str, Any]:
    """The ledger in a card: of documents, of rows, of images, or the card itself."""
    return next((found for name in LEDGERS if (found := mapping(card.get(name)))), card)


def rows_ledger(ledger: dict[str, Any], source: str = "") -> Markup:
    """Documents and bytes in = kept + set aside by each reason, where the ledger says so."""
    tables = by_unit(ledger)
    if not tables:
        return Markup("")
    shapes = {unit: figures.size if unit == "bytes" else figures.count for unit in tables}
    lines = list(dict.fromkeys(line for parts in tables.values() for line in parts))
    rows: list[list[Child]] = [["read", *(shapes[unit](known(ledger.get(unit))) for unit in tables)]]
    for line in lines:
        rows.append([line, *(shapes[unit](parts.get(line, 0.0)) for unit, parts in tables.items())])
    sums = (balance(sum(parts.values()) == known(ledger.get(unit))) for unit, parts in tables.items())
    rows.append(["sum of the parts", *sums])
    caption = f"Ledger of preparation: {source}" if source else "Ledger of preparation"
    return table(caption, ["", *tables], rows, numeric=range(1, len(tables) + 1))


def by_unit(ledger: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The parts that a ledger's whole is made of, by unit: {"documents": {"kept": 9, "set aside: …": 1}}."""
    tables: dict[str, dict[str, float]] = {}
    for unit in ("documents", "rows", "images", "bytes"):
        kept = figure_of(ledger.get("kept"), unit)
        if known(ledger.get(unit)) is None or kept is None:
            continue
        parts = {"kept": kept}
        cleaned = known(ledger.get(f"cleaned_{unit}"))
        if cleaned is not None:
            parts["cleaned away"] = cleaned
        for reason, value in mapping(ledger.get("set_aside")).items():
            parts[f"set aside: {figures.words(reason)}"] = figure_of(value, unit) or 0.0
        tables[unit] = parts
    return tables


def figure_of(value: object, unit: str) -> float | None:
    """A number, or the number under its unit."""
    return known(mapping(value).get(unit) if isinstance(value, dict) else value)


def quarantine(record: RunRecord) -> Markup:
    """The rows that preparation set aside: how many for which reason, and the first few of them."""
    found = record.quarantine
    if not found.rows:
        return Markup("")
    rows: list[list[Child]] = [
        [
            text_of(row.get("file")),
            text_of(row.get("line")),
            text_of(row.get("detail", row.get("reason")))[:200],
            text_of(row.get("text", row.get("row")))[:240],
        ]
        for row in found.examples
    ]
    reasons: list[list[Child]] = [
        [reason, figures.count(count)] for reason, count in found.reasons.most_common(MOST_ROWS)
    ]
    return details(
        f"{found.rows:,} row{'s' if found.rows > 1 else ''} set aside, kept in data/quarantine.jsonl",
        table("Set aside by reason", ["reason", "rows"], reasons, numeric=(1,)),
        table("The first of them", ["file", "line", "detail", "text"], rows, numeric=(1,)),
    )


def nested(title: str, value: object) -> Markup:
    """A structured field of a card: a table where its entries are alike, else names and values."""
    entries = value if isinstance(value, list) else list(mapping(value).values())
    alike: list[dict[str, Any]] = [flat_fields(entry) for entry in mappings(entries)]
    if alike and len(alike) == len(entries):
        names = list(dict.fromkeys(key for entry in alike for key in entry))[:7]
        heads = ["", *names] if isinstance(value, dict) else names
        first = [[figures.words(name)] for name in mapping(value)] if isinstance(value, dict) else [[] for _ in alike]
        rows: list[list[Child]] = [
            [*head, *(figures.shaped(name, entry.get(name)) for name in names)]
            for head, entry in zip(first[:MOST_ROWS], alike[:MOST_ROWS], strict=True)
        ]
        right = [i for i, name in enumerate(heads) if name and all(known(e.get(name)) is not None for e in alike)]
        shown = table(title, [figures.words(name) for name in heads], rows, numeric=right, class_="bare")
        return details(title.capitalize(), shown, open_=len(rows) <= SHORT)
    return details(title.capitalize(), field_table(title, value, "pairs bare"), open_=len(entries) <= SHORT)


def flat_fields(value: dict[str, Any]) -> dict[str, Any]:
    """A mapping whose nested mappings of numbers are raised: {"kept": {"bytes": 1}} → {"kept bytes": 1}."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        inner = mapping(item)
        raised = inner and all(known(number) is not None for number in inner.values())
        flat |= {f"{name} {key}": number for key, number in inner.items()} if raised else {name: item}
    return flat


def field_table(caption: str, value: object, class_: str = "pairs") -> Markup:
    """A nested mapping as names and values."""
    rows = list(flatten_values(value).items())[:MOST_ROWS]
    return pairs(caption, [(figures.words(name.replace(".", " · ")), text) for name, text in rows], class_)


def flatten_values(value: object) -> dict[str, str]:
    """`flatten` with numbers written as figures."""
    if isinstance(value, dict) and all(not isinstance(item, dict | list) for item in value.values()):
        return {str(name): figures.shaped(str(name), item) for name, item in value.items()}
    return {name: text[:400] for name, text in flatten(value).items()}


def model_card(record: RunRecord, summary: dict[str, Any]) -> Markup:
    """What the model is, what it may be used for, what it cannot do, and what it was made from."""
    model, recipe = mapping(summary["model"]), record.recipe
    stated = mapping(record.results.get("model_card"))
    options = mapping(model.get("options")) or mapping(recipe.get("model"))
    family = text_of(model.get("family") or options.get("family"))
    parameters, tokens = summary["measured"]["parameters"], summary["tokens"]
    plan, kind = mapping(record.plan.get("predicted")), record.data_kind
    made = "made" if mapping(recipe.get("data")).get("task") == "none" else ""
    sizes = ", ".join(
        f"{figures.words(name)} {text}" for name, text in flatten(options).items() if name != "family" and text
    )
    facts = pairs(
        "Model card",
        [
            ("Family", family),
            ("Parameters", f"{parameters:,.0f}" if parameters else ""),
            ("Sizes", sizes[:600]),
            ("Trained on", f"{figures.count(tokens)} {summary['unit']}; see the data card" if tokens else ""),
            ("Intended use", text_of(stated.get("intended_use")) or INTENDED.format(INPUTS.get(kind, "text"))),
            ("Limits", text_of(stated.get("limits")) or limits(made or kind, parameters, tokens, summary["unit"])),
            (
                "Licence of the weights",
                text_of(stated.get("licence")) or "Not stated. Choose one before you pass the model on.",
            ),
            (
                "Licence of the data",
                text_of(stated.get("data_licence") or licence_of(record))
                or "Not stated. Check that the sources allow training and publication.",
            ),
        ],
    )
    rows: list[list[Child]] = [
        [
            figures.words(text_of(part.get("name"))),
            figures.count(known(part.get("parameters"))),
            figures.percent((known(part.get("parameters")) or 0) / parameters if parameters else None),
        ]
        for part in mappings(plan.get("parts"))[:MOST_ROWS]
    ]
    heads = ["part", "parameters", "share"]
    by_part = table("Parameters by part", heads, rows, numeric=(1, 2)) if rows else None
    return join([facts, by_part])


def licence_of(record: RunRecord) -> str:
    """What the data cards say about the licence of the data."""
    return ", ".join(dict.fromkeys(text_of(card["licence"]) for card in cards_of(record).values() if "licence" in card))


def limits(kind: str, parameters: float | None, tokens: float | None, unit: str) -> str:
    """What a reader must know before relying on a model that learned from data of a kind, in plain words."""
    size = f"With {figures.count(parameters)} parameters" if parameters else "At its size"
    seen = f" and {figures.count(tokens)} trained {unit}" if tokens else ""
    cannot = CANNOT.get(kind, "it can write fluent text that is false")
    return (
        f"{size}{seen} {cannot}. It knows nothing beyond its data, repeats the "
        "errors and biases of that data, and was measured only by the evaluations in this report: not for "
        f"safety, fairness or {'cases' if kind in CANNOT else 'languages'} that the data lacks. Do not let it decide "
        "about people, health, money or law."
    )
