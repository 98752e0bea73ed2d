from __future__ import annotations

import json
import subprocess
import sys
from datetime import date

import pytest
import sqlalchemy as sa
from calls.said import asked, message

from mindset.calls.call import Asked, Outcome, Usage
from mindset.calls.log import CallLog
from mindset.calls.prices import FREE, price, priced
from mindset.calls.schema import CALLS
from mindset.database.engine import reading

USAGE = Usage(1_000_000, 500_000, 400_000, 100_000)


@pytest.fixture(autouse=True)
def _official(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)


def test_a_price_is_the_lists_rates_times_the_tokens() -> None:
    found = priced("openai:gpt-4o-mini", USAGE)
    assert found is not None
    rates = dict(found.rates)
    expected = 0.6 * rates["input_mtok"] + 0.4 * rates["cache_read_mtok"] + 0.5 * rates["output_mtok"]
    assert found.cost == pytest.approx(expected)
    assert (found.provider, found.model) == ("openai", "gpt-4o-mini")
    assert found.table.startswith("genai-prices 0.")
    assert date(2025, 1, 1) < date.fromisoformat(found.dated) <= date.today()  # noqa: DTZ011
    assert json.loads(json.dumps(found.told()))["rates"] == rates


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [
        ("smollm2", None), ("./folder", None), ("org/name", None), ("script:x.json", None),
        ("grpc://far.example:1", None), ("replay:run", None),
        ("http://127.0.0.1:8000/v1#gpt-4o", None), ("http://localhost/v1#m", None),
        ("openai:gpt-4o", "http://127.0.0.1:9/v1"), ("https://api.openai.com/v1#gpt-4o", "http://[::1]:8/v1"),
    ],
)  # fmt: skip
def test_what_is_computed_here_costs_nothing(model: str, endpoint: str | None) -> None:
    assert priced(model, USAGE, endpoint=endpoint) == FREE
    assert price(model, USAGE, endpoint=endpoint) == 0


def test_the_address_decides_not_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named = price("openai:gpt-4o", USAGE)
    assert named
    assert price("https://api.openai.com/v1#gpt-4o", USAGE) == named
    assert price("gpt-4o", USAGE, endpoint="https://api.openai.com/v1") == named
    assert price("https://models.example.org/v1#gpt-4o", USAGE) is None
    assert price("openai:no-such-model", USAGE) is None
    exact = priced("openai:my-alias", USAGE, answered_by="gpt-4o-mini")
    assert exact is not None
    assert exact.model == "gpt-4o-mini"
    assert price("anthropic:claude-sonnet-4-5", Usage(10, 10))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert price("openai:gpt-4o", USAGE) == 0


def test_prices_with_steps_and_tokens_that_cannot_be() -> None:
    few, many = (
        priced("anthropic:claude-sonnet-4-5", Usage(10)),
        priced("anthropic:claude-sonnet-4-5", Usage(1_000_000)),
    )
    assert few is not None
    assert many is not None
    assert many.cost / 1_000_000 >= few.cost / 10
    assert price("openai:gpt-4o", Usage(10, 5, 20, 30)) == price("openai:gpt-4o", Usage(10, 5, 10, 5))


def ended(log: CallLog, model: str, outcome: Outcome) -> tuple[float | None, str | None]:
    made = log.begin(Asked("complete", model, "openai" if "gpt" in model else "local", asked("a").nodes))
    log.finish(made, outcome)
    with reading(log.engine) as connection:
        row = connection.execute(sa.select(CALLS.c.cost, CALLS.c.price).where(CALLS.c.id == made)).one()
    return row.cost, row.price


def test_the_price_is_kept_with_the_call(log: CallLog) -> None:
    usage = Usage(1000, 100)
    outcome = Outcome("ok", (message("assistant", "b"),), usage=usage)
    cost, told = ended(log, "openai:gpt-4o-mini", outcome)
    assert cost == price("openai:gpt-4o-mini", usage)
    assert ended(log, "gpt-4o-mini", outcome) == (cost, told)
    assert told is not None
    assert json.loads(told)["table"].startswith("genai-prices")
    assert json.loads(told)["rates"]["input_mtok"] > 0
    assert ended(log, "smollm2", outcome) == (0, None)
    assert ended(log, "openai:no-such-model", outcome) == (None, None)
    assert ended(log, "openai:gpt-4o-mini", Outcome("refused", error="too dear")) == (0, None)
    assert ended(log, "openai:gpt-4o-mini", Outcome("ok", usage=usage, replayed_from=1)) == (0, None)
    here = Outcome("ok", usage=usage, endpoint="http://127.0.0.1:1/v1")
    assert ended(log, "openai:gpt-4o-mini", here) == (0, None)


def test_the_list_is_not_loaded_for_nothing() -> None:
    code = "import sys, mindset.calls.log; from mindset.calls.prices import price; "
    code += "from mindset.calls.call import Usage; assert price('smollm2', Usage(1, 1)) == 0; "
    code += "print('genai_prices' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
