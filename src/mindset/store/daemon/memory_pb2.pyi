from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Nothing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AboutReply(_message.Message):
    __slots__ = ("version", "protocol", "schema", "folder", "generation")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    schema: int
    folder: str
    generation: int
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., schema: _Optional[int] = ..., folder: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("field", "dtype", "rows", "d", "data")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    D_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    field: str
    dtype: str
    rows: int
    d: int
    data: bytes
    def __init__(self, field: _Optional[str] = ..., dtype: _Optional[str] = ..., rows: _Optional[int] = ..., d: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Arrays(_message.Message):
    __slots__ = ("arrays",)
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    arrays: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, arrays: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("dtype", "d")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    D_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    d: int
    def __init__(self, dtype: _Optional[str] = ..., d: _Optional[int] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("id", "layer", "name", "kind", "heads", "rule", "gated", "fields", "sealed", "top", "mounted")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Field
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Field, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    GATED_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    MOUNTED_FIELD_NUMBER: _ClassVar[int]
    id: int
    layer: int
    name: str
    kind: str
    heads: int
    rule: str
    gated: bool
    fields: _containers.MessageMap[str, Field]
    sealed: int
    top: int
    mounted: bool
    def __init__(self, id: _Optional[int] = ..., layer: _Optional[int] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., heads: _Optional[int] = ..., rule: _Optional[str] = ..., gated: _Optional[bool] = ..., fields: _Optional[_Mapping[str, Field]] = ..., sealed: _Optional[int] = ..., top: _Optional[int] = ..., mounted: _Optional[bool] = ...) -> None: ...

class ShardsReply(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[Shard]
    def __init__(self, shards: _Optional[_Iterable[_Union[Shard, _Mapping]]] = ...) -> None: ...

class ShardName(_message.Message):
    __slots__ = ("layer", "name")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    layer: int
    name: str
    def __init__(self, layer: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class ShardCount(_message.Message):
    __slots__ = ("shard", "slots", "pinned")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    slots: int
    pinned: int
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., slots: _Optional[int] = ..., pinned: _Optional[int] = ...) -> None: ...

class CountsReply(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardCount]
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardCount, _Mapping]]] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("source", "start", "stop")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    source: int
    start: int
    stop: int
    def __init__(self, source: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("id", "layer", "shard", "head", "row", "created", "cites", "label", "tags", "pinned", "weight")
    ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    CITES_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    id: int
    layer: int
    shard: str
    head: int
    row: int
    created: str
    cites: Citation
    label: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    pinned: bool
    weight: float
    def __init__(self, id: _Optional[int] = ..., layer: _Optional[int] = ..., shard: _Optional[str] = ..., head: _Optional[int] = ..., row: _Optional[int] = ..., created: _Optional[str] = ..., cites: _Optional[_Union[Citation, _Mapping]] = ..., label: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., pinned: _Optional[bool] = ..., weight: _Optional[float] = ...) -> None: ...

class Slots(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    def __init__(self, slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ...) -> None: ...

class SourceRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("id", "name", "created", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    created: str
    text: str
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., created: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Tags(_message.Message):
    __slots__ = ("tags",)
    TAGS_FIELD_NUMBER: _ClassVar[int]
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tags: _Optional[_Iterable[str]] = ...) -> None: ...

class Where(_message.Message):
    __slots__ = ("layer", "shard", "head", "tag", "pinned", "text", "suppressed")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SUPPRESSED_FIELD_NUMBER: _ClassVar[int]
    layer: int
    shard: str
    head: int
    tag: str
    pinned: bool
    text: str
    suppressed: bool
    def __init__(self, layer: _Optional[int] = ..., shard: _Optional[str] = ..., head: _Optional[int] = ..., tag: _Optional[str] = ..., pinned: _Optional[bool] = ..., text: _Optional[str] = ..., suppressed: _Optional[bool] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("where", "limit", "after", "newest")
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    where: Where
    limit: int
    after: int
    newest: bool
    def __init__(self, where: _Optional[_Union[Where, _Mapping]] = ..., limit: _Optional[int] = ..., after: _Optional[int] = ..., newest: _Optional[bool] = ...) -> None: ...

class CountReply(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("ids", "fields")
    IDS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class WrongSlot(_message.Message):
    __slots__ = ("id", "layer", "shard", "row")
    ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    id: int
    layer: int
    shard: str
    row: int
    def __init__(self, id: _Optional[int] = ..., layer: _Optional[int] = ..., shard: _Optional[str] = ..., row: _Optional[int] = ...) -> None: ...

class DamagedFile(_message.Message):
    __slots__ = ("file", "start", "stop", "message")
    FILE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    file: str
    start: int
    stop: int
    message: str
    def __init__(self, file: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class VerifyReply(_message.Message):
    __slots__ = ("wrong",)
    WRONG_FIELD_NUMBER: _ClassVar[int]
    wrong: _containers.RepeatedCompositeFieldContainer[WrongSlot]
    def __init__(self, wrong: _Optional[_Iterable[_Union[WrongSlot, _Mapping]]] = ...) -> None: ...

class DamageReply(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[DamagedFile]
    def __init__(self, files: _Optional[_Iterable[_Union[DamagedFile, _Mapping]]] = ...) -> None: ...

class IdsRequest(_message.Message):
    __slots__ = ("ids", "who")
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    who: str
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., who: _Optional[str] = ...) -> None: ...

class AddShardRequest(_message.Message):
    __slots__ = ("shard", "who")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    who: str
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., who: _Optional[str] = ...) -> None: ...

class InsertRequest(_message.Message):
    __slots__ = ("shard", "who", "slots", "arrays")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    shard: ShardName
    who: str
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    arrays: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, shard: _Optional[_Union[ShardName, _Mapping]] = ..., who: _Optional[str] = ..., slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., arrays: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class Taken(_message.Message):
    __slots__ = ("shard", "slots", "arrays", "new_shard")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    NEW_SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: ShardName
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    arrays: _containers.RepeatedCompositeFieldContainer[Array]
    new_shard: Shard
    def __init__(self, shard: _Optional[_Union[ShardName, _Mapping]] = ..., slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., arrays: _Optional[_Iterable[_Union[Array, _Mapping]]] = ..., new_shard: _Optional[_Union[Shard, _Mapping]] = ...) -> None: ...

class TakeInRequest(_message.Message):
    __slots__ = ("title", "who", "sources", "parts", "replaced")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    title: str
    who: str
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    parts: _containers.RepeatedCompositeFieldContainer[Taken]
    replaced: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, title: _Optional[str] = ..., who: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., parts: _Optional[_Iterable[_Union[Taken, _Mapping]]] = ..., replaced: _Optional[_Iterable[int]] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("ids", "who", "arrays")
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    who: str
    arrays: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., who: _Optional[str] = ..., arrays: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class ChangeRequest(_message.Message):
    __slots__ = ("ids", "who", "label", "tags", "pinned", "weight", "cites")
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CITES_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    who: str
    label: str
    tags: Tags
    pinned: bool
    weight: float
    cites: Citation
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., who: _Optional[str] = ..., label: _Optional[str] = ..., tags: _Optional[_Union[Tags, _Mapping]] = ..., pinned: _Optional[bool] = ..., weight: _Optional[float] = ..., cites: _Optional[_Union[Citation, _Mapping]] = ...) -> None: ...

class Edited(_message.Message):
    __slots__ = ("edit", "ids", "entry")
    EDIT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    edit: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    entry: Entry
    def __init__(self, edit: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., entry: _Optional[_Union[Entry, _Mapping]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("id", "kind", "title", "when", "who", "payload", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    title: str
    when: str
    who: str
    payload: str
    state: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., title: _Optional[str] = ..., when: _Optional[str] = ..., who: _Optional[str] = ..., payload: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class TurnRequest(_message.Message):
    __slots__ = ("edit", "holds")
    EDIT_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    edit: int
    holds: bool
    def __init__(self, edit: _Optional[int] = ..., holds: _Optional[bool] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("edit",)
    EDIT_FIELD_NUMBER: _ClassVar[int]
    edit: int
    def __init__(self, edit: _Optional[int] = ...) -> None: ...

class TurnsRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class SnapshotPlace(_message.Message):
    __slots__ = ("name", "changes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    changes: int
    def __init__(self, name: _Optional[str] = ..., changes: _Optional[int] = ...) -> None: ...

class SnapshotsReply(_message.Message):
    __slots__ = ("snapshots",)
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[SnapshotPlace]
    def __init__(self, snapshots: _Optional[_Iterable[_Union[SnapshotPlace, _Mapping]]] = ...) -> None: ...

class DiffRequest(_message.Message):
    __slots__ = ("before", "after")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    before: str
    after: str
    def __init__(self, before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class Changed(_message.Message):
    __slots__ = ("before", "after")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    before: Slot
    after: Slot
    def __init__(self, before: _Optional[_Union[Slot, _Mapping]] = ..., after: _Optional[_Union[Slot, _Mapping]] = ...) -> None: ...

class DiffReply(_message.Message):
    __slots__ = ("put_in", "taken_out", "changed")
    PUT_IN_FIELD_NUMBER: _ClassVar[int]
    TAKEN_OUT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    put_in: _containers.RepeatedCompositeFieldContainer[Slot]
    taken_out: _containers.RepeatedCompositeFieldContainer[Slot]
    changed: _containers.RepeatedCompositeFieldContainer[Changed]
    def __init__(self, put_in: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., taken_out: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., changed: _Optional[_Iterable[_Union[Changed, _Mapping]]] = ...) -> None: ...
