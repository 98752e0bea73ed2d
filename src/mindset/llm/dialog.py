"""A dialog that can be gone back in, forked, and continued tomorrow: a place in the dialog tree, and a client.

    dialog = Dialog(log, client)
    async with dialog.say("Who wrote Dracula?") as turn:
        async for event in turn: ...
    dialog.back(); dialog.fork("again"); dialog.switch("main")

Does not know a terminal. Invariants: nothing that was said is ever lost, since going back and saying something else
begins a branch; a turn that is left early keeps the part of the answer that had come; the place is always the end of
an exchange; the tree gets all of a dialog, also where only its end was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mindset.calls.call import NewNode
from mindset.calls.canonical import node_hash
from mindset.calls.log import CallLog
from mindset.calls.schema import now
from mindset.calls.threads import Branch, Threads
from mindset.calls.tree import Node
from mindset.errors import MissingError, UsageError
from mindset.llm.client import Client
from mindset.llm.context import BYTES_A_TOKEN, bytes_a_token, room
from mindset.llm.events import Answer
from mindset.llm.exchanges import Exchange, Fork, exchanges, grow
from mindset.llm.messages import Image, Message, system, to_nodes, user
from mindset.llm.request import Options
from mindset.llm.tools import ToolSet
from mindset.llm.turn import Turn

__all__ = ["Dialog"]

SHORTEST = 4
"""Digits of a hash at least."""


class Dialog:
    """One conversation, and where in it we are."""

    def __init__(
        self,
        log: CallLog,
        client: Client,
        *,
        branch: Branch | None = None,
        options: Options | None = None,
        tools: ToolSet | None = None,
        trusted: Iterable[str] | None = None,
    ) -> None:
        """`branch`: where to go on; None begins a conversation, which is kept once something is said.

        `trusted`: names of tools that run without somebody's word; None: all of them do.
        """
        self.client, self.options, self.tools = client, options or Options(), tools or ToolSet()
        self.trusted = None if trusted is None else set(trusted)
        self.branch = branch
        self.last: Answer | None = None
        """The last answer that was given here."""
        self.log, self._threads = log, Threads(log.engine)
        self._path: list[Node] = log.tree.path(branch.tip) if branch and branch.tip else []
        self._unsaved: set[str] = set()
        self.waiting: Message | None = None
        """A question that got no answer, which `retry` asks again."""
        self._bytes_a_token = BYTES_A_TOKEN

    # ---- where we are -------------------------------------------------------------------------------------------
    @property
    def tip(self) -> str | None:
        """Hash of the node that the next question hangs below; None at a beginning without instructions."""
        return self._path[-1].hash if self._path else None

    @property
    def exchanges(self) -> list[Exchange]:
        """What has been said up to here; instructions that stand before the first question are not among it."""
        return [exchange for exchange in exchanges(self._path) if exchange.asks]

    @property
    def system(self) -> str | None:
        """The instructions, or None."""
        head = self._head()
        return "\n".join(message.text for message in head.messages) if head else None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What a model is to know of it: exchanges of which a part was deleted are left out."""
        return tuple(m for exchange in exchanges(self._path) if exchange.whole for m in exchange.messages)

    # ---- saying -------------------------------------------------------------------------------------------------
    def say(self, text: str, *images: Image) -> Turn:
        """Ask something here."""
        if not text.strip() and not images:
            raise UsageError("there is nothing to say: give some text")
        return Turn(self, user(text, *images))

    def retry(self) -> Turn:
        """Ask again what got no answer, or else the last question, for another answer."""
        if self.waiting is not None:
            return Turn(self, self.waiting)
        here = self._path
        question = self._back(1)
        if not question.parts:
            raise UsageError("the last question was deleted: ask in other words")
        return Turn(self, question, here)

    def advance(self, said: Sequence[Message], answer: Answer) -> None:
        """Go on behind a question and its answer, which from now on belong to the conversation."""
        before, nodes = self.tip, self._placed(to_nodes(said))
        path = [*self._path, *nodes]
        self._save(path)
        self.branch = self._moved(before, path)
        self._path, self.last, self.waiting = path, answer, None

    def unanswered(self, question: Message, place: Sequence[Node] | None) -> None:
        """Stay where we were, since nothing was answered, and remember the question."""
        self.waiting = question
        if place is not None:
            self._path = list(place)

    def room(self) -> int | None:
        """Bytes of dialog that the model takes; None where nobody knows."""
        return room(self.client.context, self.options.max_tokens, self._bytes_a_token)

    def learn(self, sent: Sequence[Message], answer: Answer) -> None:
        """Measure the model's tokens by what was sent and counted."""
        self._bytes_a_token = bytes_a_token(sent, answer, self._bytes_a_token)

    # ---- going elsewhere ----------------------------------------------------------------------------------------
    def back(self, count: int = 1) -> str:
        """Go to before the last question, or the one `count` questions ago; returns its words."""
        return self._back(count).text

    def fork(self, name: str | None = None) -> Branch:
        """Begin a branch here, and be on it."""
        if self.branch is None:
            raise UsageError("nothing was said yet, so there is nothing to fork from")
        self._save(self._path)
        self.branch = self._threads.fork(self.branch, self.tip, name=name, model=self._model())
        return self.branch

    def switch(self, where: str) -> Branch:
        """Go to the end of a branch, by its name, or behind an exchange, by the first digits of its hash."""
        branches = self.branches()
        named = next((branch for branch in branches if branch.name == where), None)
        if named is not None:
            self.branch, self._path = named, self._path_of(named)
            return named
        self.branch, self._path = self._find(where, branches)
        return self.branch

    def instruct(self, text: str | None) -> None:
        """Put other instructions above all that was said here, or none: a branch of its own once one goes on."""
        head = self._head()
        rest = self._path[len(head.nodes) if head else 0 :]
        nodes = [NewNode(node.kind, node.content or {}) for node in rest if node.content is not None]
        if len(nodes) < len(rest):
            raise UsageError(
                "a part of this dialog was deleted, so that it cannot be told under other instructions"
            )
        self._path = []
        self._path = self._placed([*(to_nodes([system(text)]) if text else ()), *nodes])
        if self.branch is not None and rest:
            self._save(self._path)
            self.branch = self._moved(None, self._path)

    # ---- looking ------------------------------------------------------------------------------------------------
    def branches(self) -> list[Branch]:
        """The branches of the conversation, oldest first; none before something was said."""
        return [] if self.branch is None else self._threads.branches(self.branch.conversation)

    def tree(self) -> list[Fork]:
        """All branches as one tree of exchanges."""
        lines = ((branch.name, self._path_of(branch)) for branch in self.branches())
        return grow((name, [e for e in exchanges(path) if e.asks]) for name, path in lines)

    # ---- inside -------------------------------------------------------------------------------------------------
    def _head(self) -> Exchange | None:
        first = exchanges(self._path)[:1]
        return first[0] if first and not first[0].asks else None

    def _back(self, count: int) -> Message:
        asked = self.exchanges
        if not 1 <= count <= len(asked):
            there = f"there are {len(asked)} questions" if asked else "nothing was asked yet"
            raise UsageError(f"cannot go back {count}: {there} on this branch")
        exchange = asked[-count]
        self._path, self.waiting = self._path[: self._path.index(exchange.nodes[0])], None
        question = exchange.messages[:1]
        return question[0] if question and question[0].role == "user" else Message("user", ())

    def _placed(self, nodes: Sequence[NewNode]) -> list[Node]:
        """Nodes as they will hang below the place, without their secrets; not stored yet."""
        placed: list[Node] = []
        parent, when = self.tip, now()
        for node in nodes:
            content = self.log.redactor.json(dict(node.content))
            hash = node_hash(node.kind, content, parent)  # noqa: A001 - the field's word
            placed.append(Node(hash, node.kind, content, parent, when))
            parent = hash
        self._unsaved.update(node.hash for node in placed)
        return placed

    def _save(self, path: Sequence[Node]) -> None:
        for node in path:
            if node.hash in self._unsaved and node.content is not None:
                self.log.tree.add(node.kind, node.content, node.parent)
                self._unsaved.discard(node.hash)

    def _moved(self, before: str | None, path: Sequence[Node]) -> Branch:
        """The branch that ends with, or goes through, the end of `path`, which went on behind `before`."""
        tip, model = path[-1].hash if path else None, self._model()
        if self.branch is None:
            return self._threads.start(model, tip)
        if before == self.branch.tip:
            return self._threads.move(self.branch, tip, model)
        others = [self.branch, *(b for b in self.branches() if b.id != self.branch.id)]
        through = next((b for b in others if any(node.hash == tip for node in self._path_of(b))), None)
        if through is not None:
            return through
        ends = next((b for b in others if b.tip == before), None)
        if ends is not None:
            return self._threads.move(ends, tip, model)
        return self._threads.fork(self.branch, tip, model=model)

    def _model(self) -> str:
        """Whom we talk to, without a password that may be in an address."""
        return self.log.redactor.text(self.client.model)

    def _path_of(self, branch: Branch) -> list[Node]:
        return self.log.tree.path(branch.tip) if branch.tip else []

    def _find(self, digits: str, branches: Sequence[Branch]) -> tuple[Branch, list[Node]]:
        """The place behind the one exchange whose last hash begins so, on our branch where that has it."""
        known = f"{digits!r} is neither a branch nor the beginning of a hash in /tree"
        if len(digits) < SHORTEST:
            raise MissingError(f"{known}; give {SHORTEST} digits or more")
        mine = self.branch.id if self.branch else 0
        found: dict[str, tuple[Branch, list[Node]]] = {}
        for branch in sorted(branches, key=lambda b: b.id != mine):
            path = self._path_of(branch)
            for exchange in exchanges(path):
                if exchange.tip.startswith(digits):
                    found.setdefault(exchange.tip, (branch, path[: path.index(exchange.nodes[-1]) + 1]))
        if len(found) > 1:
            raise UsageError(f"{digits!r} begins {len(found)} hashes of this conversation; give more digits")
        if not found:
            raise MissingError(known)
        return next(iter(found.values()))
