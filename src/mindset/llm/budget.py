"""What calls may cost: money and tokens, granted before a call is made, charged after it.

    with budget(money=0.50, tokens=200_000) as purse:
        ...                                 # every call in here, in tasks begun in here too
    purse.money_spent

A call that would pass a budget, taken at its prompt and the longest answer it allows, is refused and nothing is sent.
Knows tokens and tariffs, not models. Invariant: what is granted to calls under way counts as spent, so calls made at
the same time do not pass a budget together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mindset.calls.call import Usage
from mindset.errors import BudgetError, UsageError

__all__ = ["ASSUMED_ANSWER", "Budget", "Grant", "Tariff", "budget", "budgets_in_force"]

ASSUMED_ANSWER = 1024
"""Tokens that an answer is taken to have where the request sets no `max_tokens`."""

Tariff = Callable[[Usage], float | None]
"""What tokens cost, in US dollars; None where nobody knows."""


class Budget:
    """So much may be spent. Shared by whoever holds it, in every thread."""

    def __init__(self, *, money: float | None = None, tokens: int | None = None) -> None:
        """`money` in US dollars, `tokens` read and written together; None: no limit."""
        if money is None and tokens is None:
            raise UsageError("a budget limits money or tokens: give at least one of them")
        for name, value in (("money", money), ("tokens", tokens)):
            if value is not None and not value >= 0:
                raise UsageError(f"{name}={value} is no budget: give 0 or more")
        self.money, self.tokens = money, tokens
        self.money_spent = 0.0
        """US dollars, with what is granted to calls under way."""
        self.tokens_spent = 0
        self._lock = threading.Lock()

    def take(self, usage: Usage, price: float | None) -> None:
        """Count as spent, or refuse and count nothing."""
        tokens = _tokens(usage)
        with self._lock:
            if self.tokens is not None and self.tokens_spent + tokens > self.tokens:
                raise BudgetError(
                    f"a budget of {self.tokens} tokens has {self.tokens - self.tokens_spent} left; this call may "
                    f"take {tokens}: lower max_tokens, or raise the budget"
                )
            if self.money is not None:
                self._check_money(self.money, price)
            self.tokens_spent += tokens
            self.money_spent += price or 0.0

    def give_back(self, usage: Usage, price: float | None) -> None:
        """Take back what `take` counted."""
        with self._lock:
            self.tokens_spent -= _tokens(usage)
            self.money_spent -= price or 0.0

    def charge(self, usage: Usage, price: float | None) -> None:
        """Count what was used, even where it is more than there was."""
        with self._lock:
            self.tokens_spent += _tokens(usage)
            self.money_spent += price or 0.0

    def _check_money(self, money: float, price: float | None) -> None:
        if price is None:
            raise BudgetError(
                "a budget of money cannot hold for a model whose price is unknown: limit its tokens"
            )
        if self.money_spent + price > money:
            raise BudgetError(
                f"a budget of ${money:.4f} has ${money - self.money_spent:.4f} left; this call may cost "
                f"${price:.4f}: lower max_tokens, or raise the budget"
            )


class Grant:
    """What one call was granted by every budget that holds for it."""

    def __init__(self, budgets: tuple[Budget, ...], tariff: Tariff, expected: Usage) -> None:
        """Ask all of them; one that refuses leaves the others as they were."""
        self._budgets, self._tariff, self._expected = budgets, tariff, expected
        self._price = tariff(expected) if budgets else None
        for number, purse in enumerate(budgets):
            try:
                purse.take(expected, self._price)
            except BudgetError:
                for earlier in budgets[:number]:
                    earlier.give_back(expected, self._price)
                raise

    def settle(self, used: Usage) -> None:
        """Charge what was used in place of what was granted."""
        price = self._tariff(used) if self._budgets else None
        for purse in self._budgets:
            purse.give_back(self._expected, self._price)
            purse.charge(used, price)


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


_in_force: ContextVar[tuple[Budget, ...]] = ContextVar("mindset_budgets", default=())


@contextmanager
def budget(*, money: float | None = None, tokens: int | None = None) -> Iterator[Budget]:
    """A budget for all calls inside the block, whatever client makes them; an inner one holds beside the outer."""
    purse = Budget(money=money, tokens=tokens)
    token = _in_force.set((*_in_force.get(), purse))
    try:
        yield purse
    finally:
        _in_force.reset(token)


def budgets_in_force() -> tuple[Budget, ...]:
    """The budgets of all blocks around, outermost first."""
    return _in_force.get()
