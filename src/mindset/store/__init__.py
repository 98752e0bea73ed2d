"""Slots on disk: what a memory is made of, as files, handed out as numpy arrays over their maps.

Knows numpy and the file system; knows neither torch nor models. From the outside in:

    memory_dir.py    the `memory/` folder of a model: banks -> shards -> slabs, published by one rename
    records.py       a bank and its shards as plain data, checked when built
    slab.py          one file of fixed-size rows, its dtype named and its blocks checksummed
"""

from mindset.store.memory_dir import Damage, MemoryDir
from mindset.store.records import BankRecord, Rows, ShardRecord
from mindset.store.slab import STORAGE, Slab

__all__ = ["STORAGE", "BankRecord", "Damage", "MemoryDir", "Rows", "ShardRecord", "Slab"]
