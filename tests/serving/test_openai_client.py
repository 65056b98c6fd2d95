"""OpenAI's own client against the server, plain, asynchronous and streamed: the shapes are what it takes them for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import openai
import pydantic
import pytest
from house import KEY, house, served

from groundup.serving.specimen import Specimen

HELLO = [{"role": "user", "content": "hello"}]
CALL = 'So. <tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
                       "additionalProperties": False},
    },
}  # fmt: skip


class Answer(pydantic.BaseModel):
    value: int
    words: list[str]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    def script(prompt: str, wanted: object) -> str:
        return CALL if "<tools>" in prompt else "You said: hello"

    with served(house(Specimen(script=script), keys=(KEY,))) as found:
        yield f"{found}/v1"


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address, api_key=KEY, max_retries=0) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    assert next(model.id for model in client.models.list()) == "writer"
    assert client.models.retrieve("writer").owned_by == "groundup"


def test_a_chat_and_its_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="writer", messages=HELLO, logprobs=True, top_logprobs=2, seed=1)
    assert whole.choices[0].message.content == "You said: hello" and whole.choices[0].finish_reason == "stop"
    assert whole.usage and whole.usage.prompt_tokens_details and whole.usage.completion_tokens == 15
    assert whole.choices[0].logprobs and len(whole.choices[0].logprobs.content or ()) == 15
    stream = client.chat.completions.create(
        model="writer", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: hello"
    assert chunks[-1].usage == whole.usage


def test_the_stream_helper_with_tools(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="writer", messages=HELLO, tools=[TOOL]) as stream:  # type: ignore
        kinds = {event.type for event in stream}
        found = stream.get_final_completion().choices[0]
    assert {"content.delta", "tool_calls.function.arguments.delta"} <= kinds
    assert found.finish_reason == "tool_calls" and found.message.tool_calls
    assert found.message.tool_calls[0].function.parsed_arguments == {"city": "Köln"}


def test_a_round_of_tools(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="writer", messages=HELLO, tools=[TOOL], tool_choice="required")
    message = first.choices[0].message
    assert message.tool_calls and json.loads(message.tool_calls[0].function.arguments)
    back = [*HELLO, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}]
    assert client.chat.completions.create(model="writer", messages=back).choices[0].message.content


def test_structured_output(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model="writer", messages=HELLO, response_format=Answer)
    assert parsed.choices[0].message.parsed == Answer(value=3, words=[])


def test_plain_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="writer", prompt="ab", echo=True, logprobs=1, max_tokens=3, n=2)
    assert [choice.text[:2] for choice in whole.choices] == ["ab", "ab"]
    assert whole.choices[0].logprobs and whole.choices[0].logprobs.text_offset == [0, 0, 1, 2, 3, 4]
    text = "".join(c.choices[0].text for c in client.completions.create(model="writer", prompt="ab", stream=True))
    assert text == "You said: hello"


def test_embeddings(client: openai.OpenAI) -> None:
    # without a format the client asks for base64 and decodes it
    coded = client.embeddings.create(model="vectors", input=["hello", "there"])
    plain = client.embeddings.create(model="vectors", input=["hello", "there"], encoding_format="float")
    for one, other in zip(coded.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI, address: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="none", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="writer", messages=[{"role": "user", "content": "x" * 9999}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model="writer", messages=HELLO, temperature=9)
    assert hot.value.param == "temperature"
    stranger = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_the_asynchronous_client(address: str) -> None:
    async def work() -> None:
        async with openai.AsyncOpenAI(base_url=address, api_key=KEY, max_retries=0) as client:
            asked = [client.chat.completions.create(model="writer", messages=HELLO) for _ in range(4)]
            assert {(await one).choices[0].message.content for one in asked} == {"You said: hello"}
            stream = await client.chat.completions.create(model="writer", messages=HELLO, stream=True)
            text = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(text) == "You said: hello"
            left = await client.chat.completions.create(model="writer", messages=HELLO, stream=True)
            async for _ in left:
                break
            await left.close()

    asyncio.run(work())
