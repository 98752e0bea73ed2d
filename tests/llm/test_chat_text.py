from __future__ import annotations

import pytest
from llm.engine.texts import words
from transformers import PreTrainedTokenizerFast

from mindset.errors import UnsupportedRequestError
from mindset.llm.chat_text import ChatText
from mindset.llm.messages import Message, ToolCall, ToolResult, assistant, system, tool_result, user
from mindset.llm.request import Request, ToolSpec

PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}" + PLAIN
)
WITH_TOOLS = (
    "{% if tools %}{{ tools | map(attribute='function') | map(attribute='name') | join(' ') }}\n{% endif %}"
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} {{ c.function.arguments.a }}{% endfor %}"
    "{{ '\\n' }}{% endfor %}[assistant]"
)
ADD = ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}}})
DIALOG: list[Message] = [
    user("How much?"),
    assistant("Let me see.", ToolCall("1", "add", '{"a": 7}')),
    tool_result(ToolResult("1", "twelve", "add")),
]


def chat(template: str | None) -> ChatText:
    tokenizer: PreTrainedTokenizerFast = words()
    tokenizer.chat_template = template
    return ChatText(tokenizer)


def test_a_dialog_by_its_template() -> None:
    assert (
        chat(PLAIN).text([system("Be brief."), user("Hello")])
        == "[system] Be brief.\n[user] Hello\n[assistant]"
    )


def test_a_template_that_knows_tools_is_given_them() -> None:
    known = chat(WITH_TOOLS)
    text = known.text(DIALOG, [ADD])
    assert text.splitlines() == [
        "add",
        "[user] How much?",
        "[assistant] Let me see.<tool_call>add 7",
        "[tool] twelve",
        "[assistant]",
    ]
    assert not known.calls_are_bare
    assert chat(WITH_TOOLS.replace("<tool_call>", "")).calls_are_bare


def test_others_are_told_of_tools_in_the_system_message() -> None:
    text = chat(PLAIN).text([system("Be brief."), *DIALOG], [ADD])
    assert text.startswith("[system] Be brief.\n\n# Tools")
    assert '"name": "add"' in text
    assert (
        '[assistant] Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>' in text
    )
    assert "[user] <tool_response>\ntwelve\n</tool_response>" in text
    assert chat(PLAIN).text([user("Hello")], [ADD]).startswith("[system] # Tools")
    assert not chat(PLAIN).calls_are_bare


def test_tools_that_are_not_to_be_called_are_not_told() -> None:
    request = Request((user("a"),), tools=(ADD,), tool_choice="none")
    known = chat(PLAIN)
    assert known.ids(request) == known.ids(Request((user("a"),)))


def test_a_template_without_system_messages_gets_it_with_the_user_s() -> None:
    assert (
        chat(NO_SYSTEM).text([system("Be brief."), user("Hello")]) == "[user] Be brief.\n\nHello\n[assistant]"
    )
    assert chat(NO_SYSTEM).text([system("Be brief.")]) == "[user] Be brief.\n[assistant]"


def test_what_a_template_does_not_take_is_refused() -> None:
    with pytest.raises(UnsupportedRequestError, match="no chat template"):
        chat(None).text([user("Hello")])
    broken = "{{ raise_exception('roles must alternate') }}"
    for dialog in ([user("a")], [system("s"), user("a")]):
        with pytest.raises(UnsupportedRequestError, match="roles must alternate"):
            chat(broken).text(dialog)
