"""The page in a browser: a chat streams and stops, a live run's curve grows, a drawn digit is judged, and all of it can
be read aloud and typed. The server is the real one; its models are made up (page_server.py)."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server is an extra: pip install 'groundup[serve]'")
pytest.importorskip("playwright", reason="the browser's driver is not installed")

from made_runs import HOSTILE, append, classifier_run, live_run, runs_folder
from page_server import script, serving
from playwright.sync_api import expect, sync_playwright
from tests.report.example_run import write_object

from groundup.data.chat_layout import detect, normalize
from groundup.serving import pages
from groundup.serving.served import Wanted
from groundup.serving.specimen import Specimen

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = pages.FOLDER
KEY = "a-key-of-more-than-sixteen"
SECONDS = 15_000
"""Milliseconds until something that must happen is given up."""
FORBIDDEN = r"innerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://(?!www\.w3)"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
COUNT_PICTURES = """() => {
  const make = HTMLCanvasElement.prototype.toDataURL;
  window.pictures = 0;
  HTMLCanvasElement.prototype.toDataURL = function (...how) { window.pictures += 1; return make.apply(this, how); };
}"""
INKED = """() => {
  const canvas = document.querySelector("canvas.preview");
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value === 255);
}"""
"""Whether what is drawn has come into the picture of what is sent."""
CHAT_COMMAND = ".right .command-row code"


class Gate:
    """Lets a made-up model write only as many tokens as it was told."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, count: int) -> None:
        while not self.open.is_set() and not self.allowed.acquire(timeout=0.05):
            pass

    def let(self, tokens: int) -> None:
        for _ in range(tokens):
            self.allowed.release()


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.open.set()  # or the model's thread would wait for ever


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs_folder(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@contextmanager
def visit(browser: Any, address: str, place: str = "", **look: Any) -> Iterator[Any]:
    """A page in a context of its own; what it writes into the console fails the test."""
    look = {"locale": "en-US", "viewport": {"width": 1280, "height": 860}, **look}
    context = browser.new_context(**look)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    faults: list[str] = []
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("dialog", lambda dialog: dialog.accept())
    page.faults = faults
    try:
        page.goto(f"{address}/{place}")
        yield page
        assert not faults, faults
    finally:
        context.close()


def id_of(page: Any, kind: str, name: str) -> str:
    found = page.request.get(f"{page.url.split('/#')[0].rstrip('/')}/api/{kind}").json()
    return next(one["id"] for one in found if one["name"] == name)


def ask(page: Any, text: str) -> None:
    page.wait_for_selector("#send:not([disabled])")
    page.fill("#message", text)
    page.press("#message", "Enter")


@needs_browser
def test_a_chat_streams_and_stop_stops(browser: Any, folder: Path, gate: Gate) -> None:
    model = Specimen(script=script, before_token=gate)
    with serving(folder, language=model) as address, visit(browser, address) as page:
        ask(page, "Why so?")
        expect(page.locator("#stop")).to_be_visible()
        gate.let(10)
        expect(page.locator(".model .text")).to_have_text("A learning")
        page.click("#stop")
        expect(page.locator(".model .acts")).to_contain_text("stopped")
        for _ in range(100):  # fewer than the answer has: it is over because it was cancelled
            gate.let(1)
            if model.wait_idle(0.1):
                break
        assert model.counts["cancelled"] == 1
        gate.open.set()
        assert page.locator(".model .text").inner_text() == "A learning"
        page.click("text=Regenerate")
        expect(page.locator(".model .text")).to_contain_text("does this for you.")
        expect(page.locator("#send")).to_be_visible()
        expect(page.locator("#said")).to_contain_text("Answer: A learning rate")


@needs_browser
@pytest.mark.slow
def test_the_command_line_says_what_was_asked(browser: Any, folder: Path) -> None:
    asked: list[Wanted] = []

    def answer(prompt: str, wanted: Wanted) -> str:
        asked.append(wanted)
        return "so"

    def packed(route: Any) -> None:
        found = route.fetch().json()
        found["data"][0]["card"] |= {"path": "runs/a b", "form": "compiled", "precision": "int8"}
        route.fulfill(json=found)

    with (
        serving(folder, language=Specimen(script=answer)) as address,
        visit(browser, address, "#/runs") as page,
    ):
        page.route("**/v1/models", packed)
        page.click("nav a:has-text('Chat')")
        said = page.locator(CHAT_COMMAND)
        expect(said).to_have_text("groundup chat 'runs/a b' --temperature 0.7 --max-tokens 512 --precision int8")
        page.click("text=Sampling")
        for label, value in (("Temperature", "0.7"), ("Longest answer", "512"), ("Top p", "1"), ("Top k", "")):
            expect(page.get_by_label(label)).to_have_value(value)
        ask(page, "ping")
        expect(page.locator(".model .text")).to_have_text("so")
        assert (asked[0].temperature, asked[0].max_tokens, asked[0].top_p, asked[0].top_k) == (0.7, 512, 1.0, 0)
        for label, value in (("Temperature", "0"), ("Longest answer", ""), ("Top p", "0.9"), ("Top k", "40")):
            page.get_by_label(label).fill(value)
        page.fill("#system", "Be 'brief'. ")
        expect(said).to_have_text(
            "groundup chat 'runs/a b' --temperature 0 --max-tokens 512 --top-p 0.9 --top-k 40 --precision int8 "
            "--system 'Be '\\''brief'\\''.'"
        )
        ask(page, "again")
        expect(page.locator(".model .text")).to_have_text(["so", "so"])
        assert (asked[1].temperature, asked[1].max_tokens, asked[1].top_p, asked[1].top_k) == (0.0, 512, 0.9, 40)


@needs_browser
@pytest.mark.slow
def test_another_model_leaves_the_settings_as_they_are(browser: Any, address: str) -> None:
    with visit(browser, address) as page:
        page.click("text=Sampling")
        page.get_by_label("Seed").fill("7")
        page.focus("#model")
        page.select_option("#model", "second")
        expect(page.locator(CHAT_COMMAND)).to_contain_text("chat second")
        expect(page.get_by_label("Seed")).to_be_visible()
        assert page.evaluate("document.activeElement.id") == "model"


@needs_browser
@pytest.mark.slow
def test_a_model_without_a_chat_template_goes_on_with_a_text(browser: Any, address: str) -> None:
    paths: list[str] = []
    with visit(browser, address) as page:
        page.on("request", lambda request: paths.append(request.url.removeprefix(address)))
        expect(page.locator(".lead")).to_have_text("Say something to the model.")
        expect(page.locator("#goes-on")).to_be_hidden()
        page.select_option("#beside", "plain")
        expect(page.locator("#goes-on")).to_contain_text("continues your text: plain.")
        page.select_option("#beside", "")
        page.select_option("#model", "plain")
        expect(page.locator("#goes-on")).to_have_text("This model has no chat template: it continues your text.")
        expect(page.locator(".lead")).to_have_text("Begin a text, and the model goes on with it.")
        expect(page.locator("#message")).to_have_attribute("placeholder", "The beginning of a text")
        expect(page.locator("#system")).to_be_disabled()
        expect(page.locator(CHAT_COMMAND)).to_have_text(
            "groundup generate plain --prompt TEXT --temperature 0.7 --max-tokens 512"
        )
        ask(page, "Once")
        expect(page.locator(".model .text")).to_have_text("You said: <begin>Once")
        assert "/v1/completions" in paths and "/v1/chat/completions" not in paths


@needs_browser
@pytest.mark.slow
def test_edit_two_models_export_and_reload(browser: Any, address: str, tmp_path: Path) -> None:
    with visit(browser, address) as page:
        page.select_option("#beside", "second")
        page.fill("#system", "Be brief.")
        ask(page, "one")
        expect(page.locator(".two .model .text")).to_have_text(["You said: one"] * 2)
        ask(page, "two")
        expect(page.locator(".two .model .text")).to_have_count(4)
        expect(page.locator("#send")).to_be_visible()
        page.locator(".turn").nth(1).get_by_role("button", name="Edit").click()
        page.fill(".editing textarea", "three")
        page.click("text=Send again")
        expect(page.locator(".turn").nth(1).locator(".model .text")).to_have_text(["You said: three"] * 2)
        expect(page.locator("#send")).to_be_visible()
        page.reload()
        expect(page.locator(".turn .user .text")).to_have_text(["one", "three"])
        with page.expect_download() as download:
            page.get_by_role("button", name="Export", exact=True).click()
        download.value.save_as(tmp_path / "out.jsonl")
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
        said = [("system", "Be brief."), ("user", "one"), ("assistant", "You said: one"), ("user", "three"),
                ("assistant", "You said: three")]  # fmt: skip
        assert [[(m["role"], m["content"]) for m in row["messages"]] for row in rows] == [said, said]
        layout = detect(rows)
        assert layout is not None and len(normalize(rows[0], layout.format)) == 5  # as training reads it
        assert "--system 'Be brief.'" in page.locator(".right .command-row").first.inner_text()
        page.get_by_role("button", name="Delete").click()
        expect(page.locator(".kept li")).to_have_count(0)


@needs_browser
@pytest.mark.slow
def test_probabilities_are_read_by_key(browser: Any, address: str) -> None:
    with visit(browser, address) as page:
        page.check("#probabilities")
        ask(page, "hm")
        tokens = page.locator(".sure")
        expect(tokens.locator("span")).to_have_count(len("You said: hm"))
        tokens.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".token-view .reading")).to_contain_text("77.9 %")
        expect(page.locator(".token-view .reading li")).to_have_count(5)
        tokens.locator("span").nth(5).hover()
        expect(tokens.locator(".at")).to_have_text("a")


@needs_browser
def test_a_live_run_grows_while_it_is_watched(browser: Any, tmp_path: Path) -> None:
    rest = live_run(tmp_path / "run", steps=20)
    with serving(tmp_path) as address, visit(browser, address, "#/runs") as page:
        page.get_by_role("link", name="run", exact=True).click()
        expect(page.locator("h1 .badge")).to_have_text("training")
        expect(page.locator(".tiles b").first).to_have_text("20")
        line = page.locator(".chart .line").first
        before = line.get_attribute("d")
        append(tmp_path / "run", rest[: len(rest) // 2])
        expect(line).not_to_have_attribute("d", before)
        assert len(line.get_attribute("d")) > len(before)
        append(tmp_path / "run", rest[len(rest) // 2 :])
        expect(page.locator("h1 .badge")).to_have_text("finished")
        expect(page.locator(".tiles b").first).to_have_text("100")
        chart = page.locator(".chart").first
        chart.focus()
        page.keyboard.press("End")
        expect(page.locator(".reading").first).to_contain_text("step 100")
        page.get_by_label("Time", exact=True).check()
        page.keyboard.press("Tab")
        expect(page.locator(".chart .label").last).to_contain_text("s")


@needs_browser
@pytest.mark.slow
def test_runs_are_compared_and_a_report_opens(browser: Any, address: str) -> None:
    with visit(browser, address, "#/runs") as page:
        page.keyboard.press("Tab")  # from here on the browser shows where the focus is
        shown = "node => (node.focus(), getComputedStyle(node).outlineStyle)"
        for name, style in {
            "h1": "none",
            "main": "none",
            "nav a >> nth=1": "solid",
            "tbody a >> nth=0": "solid",
        }.items():
            assert page.locator(name).evaluate(shown) == style, name
        for name in ("finished", "judged"):
            page.get_by_label(f"Compare {name}").check()
        page.get_by_role("link", name="Compare", exact=True).click()
        expect(page.locator(".compared li")).to_have_count(2)
        expect(page.locator(".chart .line").first).to_be_attached()
        page.locator(".compared a", has_text="judged").click()
        expect(page.locator(".heat g")).to_have_count(3)
        page.click("text=Show the report here")
        report = page.frame_locator("iframe.report")
        expect(report.locator("h1")).to_contain_text("judged")
        assert page.frames[1].evaluate("window.origin") == "null"


@needs_browser
def test_the_quarantine_opens_and_rows_show_their_mask(browser: Any, address: str) -> None:
    with visit(browser, address, "#/data") as page:
        page.get_by_role("link", name="finished", exact=True).click()
        page.get_by_role("link", name="Quarantine (31)").click()
        expect(page.locator(".rows > li")).to_have_count(25)
        page.click("button:has-text('More')")
        expect(page.locator(".rows > li")).to_have_count(31)
        expect(page.locator(".rows blockquote").last).to_have_text(HOSTILE)
        page.select_option(".row select", "malformed: not JSON")
        expect(page.locator(".rows > li")).to_have_count(1)
        page.get_by_role("link", name="Rows", exact=True).click()
        expect(page.locator(".rows mark").first).to_have_text("Document 0 says hello.")
        page.get_by_label("Tokens", exact=True).check()
        expect(page.locator(".tokens").first.locator(".learned")).to_have_count(22)
        expect(page.locator(".centre .small")).to_have_text("1 to 10 of 25")
        page.fill("input[type=search]", "document 1")
        page.press("input[type=search]", "Enter")
        expect(page.locator(".centre .small")).to_have_text("2 to 19 of 25 · 11 found")
        page.fill("input[type=search]", "document 24")
        page.press("input[type=search]", "Enter")
        expect(page.locator(".rows > li")).to_have_count(1)


@needs_browser
def test_a_drawn_digit_is_classified(browser: Any, address: str) -> None:
    with visit(browser, address, "#/try/digits") as page:
        page.wait_for_selector(".pad")
        page.click("button:has-text('Classify')")
        expect(page.locator(".verdict")).to_contain_text("nothing to classify")
        box = page.locator(".pad").bounding_box()
        page.evaluate(COUNT_PICTURES)
        page.mouse.move(box["x"] + 140, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 140, box["y"] + 230, steps=40)
        page.mouse.up()
        page.wait_for_function(INKED)
        assert page.evaluate("window.pictures") == 0, "a picture is made when it is sent, not as the pointer moves"
        page.click("button:has-text('Classify')")
        expect(page.locator(".answer")).to_have_text("1")
        expect(page.locator(".bars .first .number")).to_have_text("90.0 %")
        expect(page.locator("canvas.picture")).to_have_attribute("width", "28")
        page.click("text=Clear")
        page.focus(".pad")
        for key in ("ArrowLeft", "Space", *["ArrowRight"] * 8, "Space"):  # a flat line, drawn by key
            page.keyboard.press(key)
        page.click("button:has-text('Classify')")
        expect(page.locator(".answer")).to_have_text("0")


@needs_browser
@pytest.mark.slow
def test_a_text_and_a_row_are_classified(browser: Any, address: str) -> None:
    with visit(browser, address, "#/try/judge") as page:
        page.fill("textarea", "an extraordinarily long sentence of a few very different words, and more")
        page.click("button:has-text('Classify')")
        expect(page.locator(".answer")).to_have_text("long")
        expect(page.locator(".attributed .for-4")).to_have_text("extraordinarily ")
        page.select_option("select", "rows")
        page.fill(".columns input >> nth=0", "41")
        page.click("button:has-text('Classify')")
        expect(page.locator(".weights .name").first).to_have_text("age = 41")


@needs_browser
@pytest.mark.slow
def test_the_key_is_asked_for_and_kept_for_the_tab_alone(browser: Any, folder: Path) -> None:
    with serving(folder, keys=(KEY,)) as address, visit(browser, address, "#/runs") as page:
        for key in ("wrong", KEY):
            page.fill("#key-input", key)
            page.press("#key-input", "Enter")
            if key == "wrong":
                expect(page.get_by_role("alert")).to_have_text("The server did not accept that key.")
                expect(page.locator("#key-input")).to_have_value("")
        expect(page.get_by_role("link", name="judged")).to_be_visible()
        assert page.evaluate("[sessionStorage.length, JSON.stringify(localStorage).includes('a-key')]") == [1, False]
        page.get_by_role("link", name="judged").click()
        page.click("text=Show the report here")
        report = page.frame_locator("iframe.report")
        expect(report.locator("h1")).to_contain_text("judged")
        assert report.locator("body").evaluate("node => getComputedStyle(node).marginTop") == "0px"  # it has its style
        page.faults[:] = [fault for fault in page.faults if "401" not in fault]  # the browser's own line of each


def grave(page: Any) -> list[tuple[str, str]]:
    """What axe-core finds in the page as it is."""
    if page.evaluate("typeof axe") == "undefined":
        axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
        page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


@needs_browser
def test_a_run_and_the_chat_are_accessible(browser: Any, address: str) -> None:
    with visit(browser, address, reduced_motion="reduce") as page:
        page.wait_for_selector("#send:not([disabled])")
        assert grave(page) == []
        page.evaluate(f"location.hash = '#/runs/{id_of(page, 'runs', 'judged')}'")
        page.wait_for_selector(".heat")
        assert grave(page) == []


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme", "locale"), [(1280, "light", "en-US"), (390, "dark", "zh-CN")])
def test_every_view_is_accessible_and_quiet(browser: Any, address: str, width: int, scheme: str, locale: str) -> None:
    look = {"viewport": {"width": width, "height": 860}, "color_scheme": scheme, "locale": locale}
    with visit(browser, address, **look, reduced_motion="reduce") as page:
        run, data = id_of(page, "runs", "judged"), id_of(page, "data", "finished")
        ask(page, "hello")
        expect(page.locator(".model .text")).to_have_text("You said: hello")
        expect(page.locator(".hint")).to_be_visible(visible=width > 1000)
        views = {
            "chat": ".model", "runs": "tbody tr", f"runs/{run}": ".heat", "data": "tbody tr", f"data/{data}": ".stack",
            f"data/{data}/rows": ".rows li", f"data/{data}/quarantine": ".rows li", "try/digits": ".pad",
            "try/rows": ".columns", "models": ".model",
        }  # fmt: skip
        for place, ready in views.items():
            page.evaluate(f"location.hash = '#/{place}'")
            page.wait_for_selector(ready)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{place} is too wide"
            if width > 1000 or place in ("chat", f"runs/{run}", f"data/{data}/rows"):
                assert not (found := grave(page)), (place, found)  # the others differ in nothing but width


@needs_browser
@pytest.mark.slow
def test_a_wide_matrix_stays_in_its_box_and_a_metric_has_one_interval(browser: Any, tmp_path: Path) -> None:
    classifier_run(tmp_path / "many")
    results = json.loads((tmp_path / "many" / "results.json").read_text())
    found = results["classification"]
    found["labels"] = [str(number) for number in range(30)]
    found["confusion"] = [[number, number, 100] for number in range(30)]
    found["headline"]["f1_macro"] = {"value": 0.9, "low": 0.8, "high": 0.97}
    row = {"stage": "train", "data": "test", "metric": "accuracy", "before": 0.5, "after": 0.95}
    results["evaluations"] = [row | {"low": 0.8611, "high": 0.9911}]
    write_object(tmp_path / "many" / "results.json", results)
    with serving(tmp_path) as address, visit(browser, address, viewport={"width": 390, "height": 800}) as page:
        page.goto(f"{address}/#/runs/{id_of(page, 'runs', 'many')}")
        heat = page.locator(".heat")
        expect(heat).to_be_attached()
        box = page.locator(".confusion .scroll")
        right, hidden = box.evaluate(
            "node => [node.getBoundingClientRect().right, node.scrollWidth - node.clientWidth]"
        )
        assert right <= 390 and hidden > 0
        box.evaluate("node => node.addEventListener('scroll', () => { node.dataset.moved = 'yes'; })")
        box.focus()
        page.keyboard.press("ArrowRight")
        expect(box).to_have_attribute("data-moved", "yes")
        whole = page.locator("main").inner_text()
        assert whole.count("0.8611 – 0.9911") == 3 and "0.85 – 1" not in whole  # above, in Results, in Classification
        assert whole.count("0.8 – 0.97") == 1


@needs_browser
@pytest.mark.slow
def test_no_runs_and_no_folder_are_said(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "later") as address, visit(browser, address, "#/runs") as page:
        expect(page.locator("main .note")).to_contain_text(f"There is no folder {tmp_path}/later.")
        expect(page.get_by_text("Choose two to four runs")).to_be_hidden()
        (tmp_path / "later").mkdir()
        expect(page.locator("main .empty")).to_have_text(f"There is no run in {tmp_path}/later yet.")
        live_run(tmp_path / "later" / "one", steps=5)
        live_run(tmp_path / "later" / "two", steps=5)
        expect(page.get_by_text("Choose two to four runs")).to_be_visible()


@needs_browser
@pytest.mark.slow
def test_models_have_the_names_they_are_served_by(browser: Any, folder: Path, address: str) -> None:
    def on_disk(route: Any) -> None:
        line = {"kind": "gguf", "family": "llama", "types": {}, "labels": [], "lineage": {}, "options": {}, "fault": ""}
        names = (("file.gguf", f"{folder}/sums"), ("lonely.gguf", "models/lonely.gguf"))
        route.fulfill(json=[{"id": name, "name": name, "path": path, **line} for name, path in names])

    with visit(browser, address, "#/runs") as page:
        page.route("**/api/models", on_disk)
        page.click("nav a:has-text('Models')")
        expect(page.locator("summary", has_text="file.gguf")).to_contain_text("served as sums")
        expect(page.locator("summary", has_text="lonely.gguf")).not_to_contain_text("served")


@needs_browser
@pytest.mark.slow
def test_hostile_names_are_text_and_keys_lead_everywhere(browser: Any, address: str) -> None:
    with visit(browser, address, "#/runs") as page:
        page.get_by_role("link", name=HOSTILE).click()
        expect(page.locator("h1")).to_contain_text(HOSTILE)
        assert page.locator("main img").count() == 0
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.goto(f"{address}/#/chat")
        page.click("#language")
        expect(page.locator("nav a").first).to_have_text("对话")
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        page.click("#theme")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.reload()
        expect(page.locator("#send")).to_have_text("发送")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"


def scripts() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(PAGE.glob("*.js"))}


def table(name: str) -> dict[str, str]:
    return dict(re.findall(r'\b([a-z0-9_]+): "((?:[^"\\]|\\.)*)"', scripts()[name]))


def test_both_languages_have_every_text_that_is_used() -> None:
    english, chinese = table("en.js"), table("zh.js")
    assert english.keys() == chinese.keys() and len(english) > 200
    for name, text in english.items():
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", chinese[name])), name
    used = {name for text in scripts().values() for name in re.findall(r'\bt\("([a-z0-9_]+)"', text)}
    assert used <= english.keys(), used - english.keys()
    prefixes = {name for text in scripts().values() for name in re.findall(r"\bt\(`([a-z]+_)\$", text)}
    indirect = {"cell_right", "cell_wrong", "pen_down", "pen_up"} | {
        name for text in scripts().values() for name in re.findall(r't\(name\)|name: "([a-z_]+)", min', text)
    }
    unused = {name for name in english if name not in used | indirect and not name.startswith(tuple(prefixes))}
    assert not unused, unused


def test_the_page_needs_nothing_else_and_runs_nothing_inline() -> None:
    index = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<style|style=|\son[a-z]+=|javascript:", index)
    assert all(found.startswith("/page/") for found in re.findall(r'(?:src|href)="([^"#]+)"', index))
    for name, text in scripts().items():
        assert not re.search(FORBIDDEN, text), name
        for module in re.findall(r'from "\./([\w.]+)"', text):
            assert (PAGE / module).is_file(), (name, module)
        assert len(text.splitlines()) <= 400, name
    for path in PAGE.glob("*.css"):
        assert "url(" not in path.read_text("utf-8") and "@import" not in path.read_text("utf-8")
