"""What a daemon answers about its memory: one method a call, each from a whole request to the parts of a reply.

Knows neither sockets nor how parts travel; runs in many threads at once. Invariant: nothing here changes the memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages
from mindset.store.daemon.arrays import pack
from mindset.store.daemon.protocol import PROTOCOL, cut, pages, release
from mindset.store.memory import Memory
from mindset.store.schema import SCHEMA
from mindset.store.slab import STORAGE

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
            folder=str(self.memory.folder.absolute()), generation=self.store.generation(),
        )  # fmt: skip

    def shards(self, _: pb.Nothing) -> pb.ShardsReply:
        return pb.ShardsReply(shards=[messages.shard_message(one) for one in self.store.shards()])

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
            what = info.fields[field]
            for some in cut(len(rows), what["d"] * STORAGE[what["dtype"]].itemsize):
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
        for some in pages(map(messages.wrong_message, self.store.verify())):
            yield pb.VerifyReply(wrong=some)

    def damage(self, _: pb.Nothing) -> pb.DamageReply:
        return pb.DamageReply(files=[messages.damage_message(one) for one in self.store.damage()])
