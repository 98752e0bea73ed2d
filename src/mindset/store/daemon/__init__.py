"""One process keeps a memory open and others ask it: so several share one memory, and one of them at a time writes.

    memory.proto     what is asked and answered; `memory_pb2*.py` are generated from it
    server.py        the daemon: one folder, one socket or loopback port
    remote_store.py  a store whose slots a daemon keeps
    remote_memory.py such a memory with its history

Needs the extra `serve` (grpcio); importing this package alone needs nothing.
"""
