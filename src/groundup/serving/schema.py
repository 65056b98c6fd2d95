"""What may be sent: one type for each kind of request, with the range of every field in its description.

The shapes are OpenAI's (platform.openai.com/docs/api-reference), with the sampling fields that other servers of open
models have. A field that no type here has is kept, so that `reading.ignored` can name it. Only types may enter.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

KNOWN_CHAT = frozenset(
    ("annotations", "audio", "function_call", "functions", "include_obfuscation", "metadata", "modalities",
     "moderation", "name", "prediction", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "refusal",
     "safety_identifier", "service_tier", "store", "strict", "user", "verbosity", "web_search_options")
)  # fmt: skip
"""Fields of OpenAI's requests that have no effect here: known, and so not refused under `strict`."""
KNOWN_COMPLETION = frozenset(("best_of", "include_obfuscation", "user"))
KNOWN_OTHER = frozenset(("user",))

MOST_TOKENS = 1_048_576
MOST_INPUTS = 2048
MOST_CHOICES = 8
MOST_MESSAGES = 2000
MOST_NAME = 400
MOST_KEYS = 2000
"""Of one object; held by reading.py for every object of a body."""

Text = Annotated[str, Field(min_length=1)]
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=MOST_TOKENS, fail_fast=True)]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Bias = Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]
BiasId = Annotated[str, Field(pattern=r"^[0-9]{1,7}$")]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class Open(BaseModel):
    """A part of a request: types as sent, no conversion; unknown fields are kept and named."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class TextPart(Open):
    type: Literal["text"]
    text: Text


class RefusalPart(Open):
    type: Literal["refusal"]
    refusal: str


Content = Text | Annotated[list[TextPart], Field(min_length=1, max_length=1000, fail_fast=True)]


Said = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class FunctionCall(Open):
    name: ToolName
    arguments: str


class ToolCall(Open):
    id: str
    type: Literal["function"]
    function: FunctionCall


class SystemMessage(Open):
    role: Literal["system", "developer"]
    content: Content


class UserMessage(Open):
    role: Literal["user"]
    content: Content


class AssistantMessage(Open):
    role: Literal["assistant"]
    content: str | Annotated[list[Said], Field(max_length=1000, fail_fast=True)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=1000, fail_fast=True)] | None = None


class ToolMessage(Open):
    role: Literal["tool"]
    content: str | Annotated[list[TextPart], Field(max_length=1000, fail_fast=True)]
    tool_call_id: str | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(Open):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Open):
    type: Literal["function"]
    function: Function


class NamedFunction(Open):
    name: ToolName


class NamedTool(Open):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(Open):
    type: Literal["text"]


class ObjectFormat(Open):
    type: Literal["json_object"]


class NamedSchema(Open):
    name: str = Field(max_length=64, description="a name of the schema, up to 64 characters")
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema", description="the JSON schema")
    strict: bool | None = None


class SchemaFormat(Open):
    type: Literal["json_schema"]
    json_schema: NamedSchema


Format = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class PatternStructure(Open):
    kind: Literal["regex", "lark"]
    source: Annotated[str, Field(min_length=1, max_length=100_000)]


class ChoiceStructure(Open):
    kind: Literal["choice"]
    choices: Annotated[list[Text], Field(min_length=1, max_length=1000, fail_fast=True)]


Structured = Annotated[PatternStructure | ChoiceStructure, Field(discriminator="kind")]


class StreamOptions(Open):
    include_usage: bool | None = None


class Sampling(Open):
    """What chat and plain completions have in common; null is the same as absent."""

    model: str = Field(max_length=MOST_NAME, description="the name of a model, as /v1/models lists them")
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = Field(
        default=None, description="a number from 0 to 2; 0 is greedy; 1 unless given"
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] | None = Field(
        default=None, description="a number above 0 up to 1"
    )
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None, description="an integer from 0 to 2147483647; 0 keeps all"
    )
    min_p: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = Field(
        default=None, description="a number from 0 to 1"
    )
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)] | None = Field(
        default=None, description="a number above 0 up to 10; 1 is off"
    )
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)] | None = Field(
        default=None, description="a number from -2 to 2"
    )
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)] | None = Field(
        default=None, description="a number from -2 to 2"
    )
    logit_bias: (
        Annotated[dict[BiasId, Bias], Field(max_length=MOST_KEYS, json_schema_extra={"additionalProperties": False})]
        | None
    ) = Field(default=None, description=f"numbers from -100 to 100 by token id, at most {MOST_KEYS}")
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        default=None, description="an integer of 64 bits"
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=4, fail_fast=True)] | None = Field(
        default=None, description="a text or up to 4, of 1 to 1000 characters each"
    )
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = Field(
        default=None, description=f"an integer from 1 to {MOST_CHOICES}"
    )
    stream: bool | None = Field(default=None, description="true or false")
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = Field(default=None, description="go on after the model ended its answer")
    structure: Structured | None = Field(
        default=None, description="what the answer must match: a regex, a lark grammar or one of some choices"
    )


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(
        min_length=1,
        max_length=MOST_MESSAGES,
        fail_fast=True,
        description=f"a list of 1 to {MOST_MESSAGES} objects with a role and its content",
    )
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = Field(
        default=None, description=f"an integer from 1 to {MOST_TOKENS}"
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = Field(
        default=None, description=f"an integer from 1 to {MOST_TOKENS}; goes before max_tokens"
    )
    logprobs: bool | None = Field(default=None, description="true or false")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(default=None, description="an integer from 0 to 20")
    response_format: Format | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = Field(
        default=None, description="at most 128"
    )
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = Field(
        default=None, description='"none", "auto", "required" or {"type": "function", "function": {"name": …}}'
    )
    parallel_tool_calls: bool | None = Field(default=None, description="true or false")
    continue_final_message: bool | None = Field(
        default=None, description="go on with the last message, which must be the assistant's"
    )


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"max_tokens": {"const": 0}}, "required": ["max_tokens"]},
            "then": {"properties": {"echo": {"const": True}}, "required": ["echo"]},
        }
    )

    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1, max_length=128, fail_fast=True)]
        | Annotated[list[Ids], Field(min_length=1, max_length=128, fail_fast=True)]
    ) = Field(description="a text, a list of up to 128 texts, a list of token ids, or up to 128 such lists")
    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = Field(
        default=None, description=f"an integer from 0 to {MOST_TOKENS}, 16 unless given; 0 only with echo"
    )
    echo: bool | None = Field(default=None, description="true or false: whether the prompt is part of the answer")
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        default=None, description="an integer from 0 to 20: how many alternatives of each token to name"
    )
    suffix: None = Field(default=None, description="null: no model here fills a gap")


class EmbeddingRequest(Open):
    """POST /v1/embeddings."""

    model: str = Field(max_length=MOST_NAME, description="the name of a model, as /v1/models lists them")
    input: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS, fail_fast=True)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_INPUTS, fail_fast=True)]
    ) = Field(description=f"a text, a list of up to {MOST_INPUTS} texts, a list of token ids, or up to so many such")
    encoding_format: Literal["float", "base64"] | None = Field(default=None, description='"float" or "base64"')
    dimensions: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="the width of the model, if anything: vectors are not shortened"
    )


Cell = str | int | float | bool | None
Row = Annotated[dict[str, Cell], Field(max_length=MOST_KEYS)]


class ClassifyRequest(Open):
    """POST /v1/classify."""

    model: str = Field(max_length=MOST_NAME, description="the name of a model, as /v1/models lists them")
    input: (
        Text
        | Row
        | Annotated[list[Text], Field(min_length=1, max_length=256, fail_fast=True)]
        | Annotated[list[Row], Field(min_length=1, max_length=256, fail_fast=True)]
    ) = Field(description="a text, an image as a data URL or base64, a table row as an object, or up to 256 of a kind")
    explain: bool | None = Field(default=None, description="true or false: name what each judgement rests on")


class TokenizeRequest(Open):
    """POST /tokenize: of a text or, if there are messages, of a conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
            ]
        }
    )

    model: str | None = Field(
        default=None, max_length=MOST_NAME, description="the name of a model; the first one unless given"
    )
    prompt: str | None = Field(default=None, description="a plain text")
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)] | None = Field(
        default=None, description="a conversation, goes before prompt"
    )
    add_special_tokens: bool | None = Field(
        default=None, description="true or false, true unless given: begin a prompt with the model's begin token"
    )


class DetokenizeRequest(Open):
    """POST /detokenize."""

    model: str = Field(max_length=MOST_NAME, description="the name of a model, as /v1/models lists them")
    tokens: Annotated[list[Id], Field(max_length=MOST_TOKENS, fail_fast=True)] = Field(
        description="a list of token ids"
    )
