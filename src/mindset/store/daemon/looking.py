"""What a daemon answers about its memory: one method a call, each from a whole request to the parts of a reply.

Knows neither sockets nor how parts travel; runs in many threads at once. Invariant: nothing here changes the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages
from mindset.store.daemon.arrays import pack
from mindset.store.daemon.protocol import PROTOCOL, cut, pages, release
from mindset.store.memory import Memory
from mindset.store.schema import SCHEMA

__all__ = ["Looking"]

PAGE = 10_000
"""Records that are read at once."""


class Looking:
    """Answers from an open memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.store = memory, memory.store

    def about(self, _: pb.Nothing) -> pb.AboutReply:
        return pb.AboutReply(
            version=release(), protocol=PROTOCOL, schema=SCHEMA.version,
            folder=str(self.memory.folder.absolute()), generation=self.store.generation(), slots=self.store.count(),
        )  # fmt: skip

    def counts(self, _: pb.Nothing) -> pb.CountsReply:
        return pb.CountsReply(shards=[messages.count_message(one) for one in self.store.counts()])

    def count(self, request: pb.Where) -> pb.CountReply:
        where = messages.read_where(request)
        return pb.CountReply(count=self.store.count(where if request.ListFields() else None))

    def scan(self, request: pb.ScanRequest) -> Iterator[pb.Slots]:
        where, left, after = messages.read_where(request.where), request.limit, request.after
        while True:
            page = self.store.scan(where, limit=min(left, PAGE), after=after, newest=request.newest)
            yield from (pb.Slots(slots=some) for some in pages(map(messages.record_message, page)))
            left -= len(page)
            if len(page) < PAGE or not left:
                return
            after = page[-1].id

    def records(self, request: pb.IdsRequest) -> Iterator[pb.Slots]:
        found = map(messages.record_message, self.store.records(list(request.ids)))
        yield from (pb.Slots(slots=some) for some in pages(found))

    def fetch(self, request: pb.FetchRequest) -> Iterator[pb.Arrays]:
        info, rows = self.store.locate(list(request.ids), list(request.fields))
        for field in request.fields:
            for some in cut(len(rows), info.fields[field]["d"] * 8):
                got = self.store.vectors.get(info, field, rows[some])
                yield pb.Arrays(arrays=pack({field: got}))

    def live(self, request: pb.ShardName) -> Iterator[pb.Arrays]:
        live = self.store.live(request.layer, request.name)
        columns = {name: column.reshape(-1, 1) for name, column in vars(live).items()}
        for some in cut(len(live.ids), 8 * len(columns)):
            yield pb.Arrays(arrays=pack(columns, some))

    def get_source(self, request: pb.SourceRequest) -> pb.Source:
        return messages.source_message(self.store.source(request.id))

    def verify(self, _: pb.Nothing) -> Iterator[pb.VerifyReply]:
        yield pb.VerifyReply(files=[messages.damage_message(one) for one in self.store.damage()])
        for some in pages(map(messages.wrong_message, self.store.verify())):
            yield pb.VerifyReply(wrong=some)

    # ---- history ------------------------------------------------------------------------------------------------

    def history(self, _: pb.Nothing) -> Iterator[pb.Entries]:
        entries = map(messages.entry_message, self.memory.history())
        yield from (pb.Entries(entries=some) for some in pages(entries))

    def snapshots(self, _: pb.Nothing) -> pb.SnapshotsReply:
        places = self.memory.snapshots().items()
        return pb.SnapshotsReply(
            snapshots=[pb.SnapshotPlace(name=name, changes=changes) for name, changes in places]
        )

    def diff(self, request: pb.DiffRequest) -> Iterator[pb.DiffReply]:
        before = request.before if request.HasField("before") else None
        found = self.memory.diff(before, request.after if request.HasField("after") else None)
        changed = (
            pb.Changed(before=messages.record_message(one.before), after=messages.record_message(one.after))
            for one in found.changed
        )
        parts = (
            pages(map(messages.record_message, found.put_in)),
            pages(map(messages.record_message, found.taken_out)),
            pages(changed),
        )
        for put_in, taken_out, some in zip_longest(*parts, fillvalue=()):
            yield pb.DiffReply(put_in=put_in, taken_out=taken_out, changed=some)
