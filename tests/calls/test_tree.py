"""The tree against a naive one; whatever is changed in the tables is found."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from calls.said import asked, call, ok, pieces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.calls.call import NewNode
from mindset.calls.canonical import canonical, node_hash
from mindset.calls.log import CallLog
from mindset.calls.schema import NODES
from mindset.calls.tree import Node, Tree, put
from mindset.database.engine import reading, writing
from mindset.errors import DataError, MissingError

SEVERAL = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
KIND = st.sampled_from(["message", "tool_call", "dream", "ü"])
CONTENT = st.dictionaries(TEXT, VALUE, max_size=3)


@pytest.fixture
def tree(log: CallLog) -> Tree:
    return log.tree


def clear(tree: Tree) -> None:
    with writing(tree.engine) as connection:
        for table in ("texts", "pieces", "calls"):
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608
        connection.exec_driver_sql("UPDATE nodes SET parent = NULL")
        connection.exec_driver_sql("DELETE FROM nodes")


@dataclass
class Naive:
    """What the tree means: hashes and what they are of."""

    nodes: dict[str, tuple[str, Any, str | None]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def add(self, kind: str, content: Any, parent: str | None) -> str:
        made = node_hash(kind, content, parent)
        self.nodes[made] = (kind, content, parent)
        self.deleted.discard(made)
        return made

    def path(self, node: str | None) -> list[str]:
        return [] if node is None else [*self.path(self.nodes[node][2]), node]


def plain(node: Node) -> tuple[str, str, Any, str | None]:
    return node.hash, node.kind, node.content, node.parent


@SEVERAL
@given(st.data())
def test_it_is_what_a_naive_tree_is(tree: Tree, data: st.DataObject) -> None:
    clear(tree)
    naive = Naive()
    for _ in range(data.draw(st.integers(1, 8))):
        known = sorted(naive.nodes)
        if known and data.draw(st.integers(0, 3)) == 0:
            node = data.draw(st.sampled_from(known))
            assert tree.delete(node).content is None
            naive.deleted.add(node)
        parent = data.draw(st.none() | st.sampled_from(known)) if known else None
        kind, content = data.draw(KIND), data.draw(CONTENT)
        assert tree.add(kind, content, parent) == naive.add(kind, content, parent)
    for node, (kind, content, parent) in naive.nodes.items():
        told = None if node in naive.deleted else json.loads(canonical(content))
        assert plain(tree.get(node)) == (node, kind, told, parent)
        assert [one.hash for one in tree.path(node)] == naive.path(node)
        below = {other for other, (_, _, above) in naive.nodes.items() if above == node}
        assert {one.hash for one in tree.children(node)} == below
    tips = naive.nodes.keys() - {parent for _, _, parent in naive.nodes.values()}
    assert {one.hash for one in tree.tips()} == tips
    root = naive.path(sorted(naive.nodes)[0])[0]
    assert {one.hash for one in tree.tips(root)} == {tip for tip in tips if root in naive.path(tip)}
    found = tree.verify()
    assert (found.nodes, set(found.tombstones), found.problems) == (len(naive.nodes), naive.deleted, ())


@SEVERAL
@given(st.lists(st.tuples(KIND, CONTENT), min_size=1, max_size=7), st.data())
def test_a_chain_put_at_once_is_its_nodes_put_singly(
    tree: Tree, data_: list[Any], data: st.DataObject
) -> None:
    clear(tree)
    nodes = [NewNode(kind, content) for kind, content in data_]
    shared = data.draw(st.integers(0, len(nodes)))
    parent = None
    for node in nodes[:shared]:
        parent = tree.add(node.kind, dict(node.content), parent)
    if parent is not None and data.draw(st.booleans()):
        tree.delete(tree.path(parent)[0].hash)
    with writing(tree.engine) as connection:
        tip = put(connection, nodes, None)
    assert tip is not None
    path = tree.path(tip)
    assert [(one.kind, one.content) for one in path] == [
        (node.kind, json.loads(canonical(dict(node.content)))) for node in nodes
    ]
    assert tree.verify().problems == ()


def test_forks_share_their_beginning(tree: Tree) -> None:
    root = tree.add("message", {"text": "who?"})
    left, right = tree.add("message", {"text": "me"}, root), tree.add("message", {"text": "you"}, root)
    assert tree.add("message", {"text": "me"}, root) == left
    assert [node.hash for node in tree.path(left)] == [root, left]
    assert [node.hash for node in tree.path(right)] == [root, right]
    assert [node.hash for node in tree.children(root)] == [left, right]
    assert [node.hash for node in tree.children(None)] == [root]
    assert tree.verify().nodes == 3
    assert tree.find(left[:10]) == left


def test_a_deletion_keeps_the_hash_and_what_hangs_below(tree: Tree) -> None:
    root = tree.add("message", {"text": "my secret name"})
    answer = tree.add("message", {"text": "ok"}, root)
    left = tree.delete(root)
    assert (left.hash, left.kind, left.content, left.parent) == (root, "message", None, None)
    assert left.deleted is not None
    assert tree.delete(root) == left
    assert tree.verify().tombstones == (root,)
    assert tree.verify().problems == ()
    assert tree.path(answer)[0] == left
    assert tree.add("message", {"text": "my secret name"}) == root
    assert tree.get(root).content == {"text": "my secret name"}
    assert tree.verify().tombstones == ()


def test_a_deletion_takes_the_words_out_of_calls(log: CallLog) -> None:
    first = call(log, "my name is Rumpelstiltskin", "hello Rumpelstiltskin")
    other = call(log, asked("my name is Rumpelstiltskin", "hello Rumpelstiltskin", "who am I?"), "a dwarf")
    answer, question = log.call(first).outcome.answer[0], log.call(first).asked.nodes[0]
    root = node_hash(question.kind, question.content, None)
    said = node_hash(answer.kind, answer.content, root)
    log.tree.delete(root)
    log.tree.delete(said)
    with reading(log.engine) as connection:
        everything = [
            str(row)
            for table in ("nodes", "texts", "pieces", "calls")
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")  # noqa: S608
        ]
        assert (
            connection.execute(sa.text("SELECT count(*) FROM pieces WHERE call = :c"), {"c": other}).scalar()
            == 1
        )
    assert not [row for row in everything if "Rumpel" in row]
    assert [row for row in everything if "dwarf" in row]
    assert log.tree.verify().problems == ()


COLUMNS = ("hash", "kind", "content", "parent", "deleted", "seal")


def mistakes(value: str | None, draw: random.Random) -> str:
    """Another value: one letter changed, taken out or put in."""
    if not value:
        return "x"
    at = draw.randrange(len(value))
    instead = draw.choice([chr(ord(value[at]) ^ 1), "", f" {value[at]}"])
    return value[:at] + instead + value[at + 1 :]


@pytest.mark.parametrize("column", COLUMNS)
def test_any_changed_letter_is_found(tree: Tree, column: str) -> None:
    draw = random.Random(0)  # noqa: S311  which letter, not a secret
    root = tree.add("message", {"text": "one", "n": 1.5, "more": ["ü", None, {"deep": True}]})
    middle = tree.add("tool_call", {"name": "two", "arguments": "{}"}, root)
    tip = tree.add("message", {"text": "three"}, middle)
    tree.delete(middle)
    with tree.engine.connect() as connection:
        before = connection.execute(sa.select(NODES)).mappings().all()
    for trial in range(20):
        row = before[trial % 3]
        changed = dict(row) | {column: mistakes(row[column], draw)}
        tamper(tree, row["hash"], changed)
        assert tree.verify().problems, (column, row, changed)
        tamper(tree, changed["hash"], dict(row))
    tamper(tree, tip, dict(before[0]) | {"hash": tip, "content": None})
    assert tree.verify().problems


def tamper(tree: Tree, node: str, row: dict[str, Any]) -> None:
    """Write past all rules."""
    with tree.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            past = sa.create_engine(f"sqlite:///{tree.engine.url.database}")
        else:
            past = sa.create_engine(
                tree.engine.url, connect_args={"options": "-c session_replication_role=replica"}
            )
    with past.begin() as connection:
        connection.execute(sa.update(NODES).where(NODES.c.hash == node).values(row))
    past.dispose()


def test_mistakes_are_one_sentence(tree: Tree) -> None:
    tree.add("message", {"text": "1"})
    for do in (tree.get, tree.path, tree.delete, lambda node: tree.add("message", {}, node)):
        with pytest.raises(MissingError, match=f"no node {'f' * 40}"):
            do("f" * 40)
    with pytest.raises(MissingError, match="begins no hash"):
        tree.find("abcdef")
    with pytest.raises(MissingError, match="6 digits or more"):
        tree.find("ab")
    with pytest.raises(DataError, match="no kind of node"):
        tree.add("a\x00", {})
    with pytest.raises(DataError, match="cannot be written as JSON"):
        tree.add("message", {"text": float("nan")})


def test_nodes_of_calls_are_nodes_of_the_tree(log: CallLog) -> None:
    call(log, "one", "two")
    made = log.begin(asked("one", "two", "three"))
    log.finish(made, ok("four"), pieces("four"))
    [tip] = log.tree.tips()
    words = [node.content["parts"][0]["text"] for node in log.tree.path(tip.hash) if node.content]
    assert words == ["one", "two", "three", "four"]
    assert log.tree.verify().nodes == 4
