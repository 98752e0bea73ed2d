"""A chat from its first line to its last: read a line, make one library call, print.

Knows how commands are carried out, not how they are written (slash) or what they mean for a dialog (llm.dialog).
Invariant: no error of one line ends the chat; a person gets one sentence and the next prompt.
"""

from __future__ import annotations

from collections.abc import Iterable

from mindset.cli import spending
from mindset.cli.chat import slash
from mindset.cli.chat.commands import Commands
from mindset.cli.chat.drawing import one_line
from mindset.cli.chat.reading import PROMPT, Reader
from mindset.cli.chat.screen import Screen
from mindset.cli.conversation import Conversation
from mindset.cli.edge import Edge
from mindset.cli.spending import Spent
from mindset.errors import MindsetError
from mindset.llm.events import Event, ReasoningPiece, Retried, TextPiece
from mindset.llm.messages import ToolCall, ToolResult
from mindset.llm.turn import Turn

__all__ = ["Session"]


class Session:
    """One person, one conversation, one terminal."""

    def __init__(
        self, edge: Edge, held: Conversation, reader: Reader, screen: Screen, *, stream: bool = True
    ) -> None:
        """`stream` False prints an answer when it is complete."""
        self.edge, self.held, self.dialog = edge, held, held.dialog
        self.reader, self.screen, self.stream = reader, screen, stream
        self.spent: list[Spent] = []
        self.failed = 0
        """Lines that could not be carried out, or got no whole answer."""
        self.draft = ""
        """What the person finds typed on the next line."""
        self._left_out = False
        self._unprinted: list[str] = []
        """Pieces of an answer that is to be printed when it is complete."""
        self._commands = Commands(self)

    def run(self) -> None:
        """Until the person leaves."""
        if self.reader.prompts:
            self._greet()
        while True:
            try:
                draft, self.draft = self.draft, ""
                line = self.reader.read(draft)
                if not line.strip():
                    continue
                if not self._take(line):
                    return
            except EOFError:
                self.screen.end()
                return
            except KeyboardInterrupt:
                self.screen.end()
                if not self.reader.prompts:
                    raise
            except (MindsetError, OSError) as error:
                self.failed += 1
                self.screen.fail(str(error))

    def _greet(self) -> None:
        """Whom one talks to, and what was said last."""
        self.screen.note(f"[{self.dialog.client.model}; /help lists the commands, Ctrl-D leaves]")
        said, branch = self.dialog.exchanges, self.dialog.branch
        if branch is None or not said:
            return
        self.screen.note(f"[conversation {branch.conversation}, branch {branch.name}, exchange {len(said)}]")
        self.screen.say(f"{PROMPT}{said[-1].question}")
        self.screen.piece(said[-1].answer)
        self.screen.end()

    def complete(self, line: str) -> Iterable[str]:
        """The words that may stand at the end of a line."""
        command, space, begun = line.partition(" ")
        if not space:
            return slash.begun(line)
        if command == "/switch":
            return [branch.name for branch in self.dialog.branches() if branch.name.startswith(begun)]
        return ()

    def _take(self, line: str) -> bool:
        """Say a line, or do what it commands; whether to go on."""
        command = slash.parse(line)
        if command is None:
            self.ask(self.dialog.say(line.strip()))
            return True
        if command[0].name == "exit":
            return False
        getattr(self._commands, command[0].name)(command[1])
        return True

    # ---- answers ------------------------------------------------------------------------------------------------
    def ask(self, turn: Turn) -> None:
        """Print an answer as it comes, then what it cost."""
        try:
            self._part(turn)
            while turn.waiting:
                turn.decide({wish.id: self._may_run(wish) for wish in turn.waiting})
                self._part(turn)
        except (KeyboardInterrupt, EOFError):
            if turn.waiting:
                turn.leave()
            kept = "what had come is kept" if turn.answer else "nothing had come; /retry asks again"
            self.screen.note(f"[stopped; {kept}]")
            if not self.reader.prompts:
                raise
        except MindsetError as error:
            self.failed += 1
            again = "; /retry asks again" if self.reader.prompts else ""
            self.screen.fail(f"{error}{'; what had come is kept' if turn.answer else again}")
        self._tell_cost(turn)

    def _part(self, turn: Turn) -> None:
        """As much of a turn as needs no word of the person."""
        with self.reader.unseen():
            self.edge.run(self._answer(turn))

    async def _answer(self, turn: Turn) -> None:
        try:
            async with turn:
                async for news in turn:
                    self._show(news)
        finally:
            self.screen.piece("".join(self._unprinted))
            self._unprinted.clear()
            self.screen.end()

    def _show(self, news: Event | ToolResult) -> None:
        if isinstance(news, ToolResult):
            self.screen.note(
                f"[{news.name}: {one_line(news.content, self.screen.width - len(news.name) - 4)}]"
            )
        elif isinstance(news, Retried):
            self.screen.note(f"[{news.reason}; once more in {news.wait:.0f} s]")
        elif isinstance(news, TextPiece) and self.stream:
            self.screen.piece(news.text)
        elif isinstance(news, TextPiece):
            self._unprinted.append(news.text)
        elif isinstance(news, ReasoningPiece) and self.stream:
            self.screen.thought(news.text)

    def _may_run(self, wish: ToolCall) -> bool:
        """Ask the person."""
        told = one_line(wish.arguments, self.screen.width - len(wish.name) - 30)
        word = self.reader.ask(f"run {wish.name}({told})? [y]es, [n]o, [a]lways: ").strip().lower()
        if word in ("a", "always") and self.dialog.trusted is not None:
            self.dialog.trusted.add(wish.name)
        return word in ("y", "yes", "a", "always")

    def _tell_cost(self, turn: Turn) -> None:
        if turn.left_out and not self._left_out:
            self._left_out = True
            self.screen.note(
                f"[the dialog is longer than what {self.dialog.client.model} takes: the oldest {turn.left_out} "
                "exchanges were not sent; they stay in /tree and in the log]"
            )
        spent = [spending.spent_on(self.held.log, call) for call in turn.calls]
        self.spent += spent
        if spent and turn.answer is not None:
            self.screen.answered(self.dialog, spending.total(spent))
