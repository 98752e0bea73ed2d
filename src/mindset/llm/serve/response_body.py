"""What POST /v1/responses is asked: OpenAI's items, tools and formats, as far as they are understood here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mindset.llm.serve.asked_messages import ChosenFunction
from mindset.llm.serve.asked_options import (
    MOST_ALTERNATIVES,
    Count,
    NamedSchema,
    ObjectFormat,
    PlainFormat,
    Seed,
)
from mindset.llm.serve.body import Body

__all__ = [
    "FlatChoice",
    "FlatSchema",
    "InputCall",
    "InputReasoning",
    "InputResult",
    "InputText",
    "ResponseBody",
    "TextFormat",
]


class InputText(Body):
    """Words."""

    type: Literal["input_text", "output_text"]
    text: str


class InputImage(Body):
    """A picture."""

    type: Literal["input_image"]
    image_url: str


class InputMessage(Body):
    """Somebody says something."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Annotated[InputText | InputImage, Field(discriminator="type")]]


class InputCall(Body):
    """What a model wanted to run."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class InputResult(Body):
    """What a tool answered."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]


class ReasoningText(Body):
    """Thoughts."""

    type: Literal["reasoning_text"]
    text: str


class InputReasoning(Body):
    """What a model thought."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None


def _kind(item: Any) -> str:
    found = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)
    return found if isinstance(found, str) else ""


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputResult, Tag("function_call_output")]
    | Annotated[InputReasoning, Tag("reasoning")],
    Discriminator(_kind),
]


class FlatTool(ChosenFunction):
    """A tool."""

    type: Literal["function"]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class FlatChoice(ChosenFunction):
    """The tool that has to be used."""

    type: Literal["function"]


class FlatSchema(NamedSchema):
    """JSON that fits a schema."""

    type: Literal["json_schema"]


class TextFormat(Body):
    """How the text is to be."""

    format: Annotated[PlainFormat | ObjectFormat | FlatSchema, Field(discriminator="type")] | None = None


class ResponseBody(Body):
    """A dialog to answer."""

    model: str | None = None
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    """Said before the rest, as the system."""
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    text: TextFormat | None = None
    tools: list[FlatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    include: list[str] | None = None
    """`message.output_text.logprobs`, for log-probabilities."""
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    seed: Seed | None = None
    """Ours."""
    top_k: Count | None = None
    """Ours: draw from this many of the likeliest tokens."""
