"""Any client served to others: HTTP as OpenAI's, a Unix socket, and gRPC, all from one process.

    server.py        the process: where it listens, how it begins and how it ends
    http.py          the HTTP application, over the table of endpoints
    grpc_server.py   the same over gRPC; llm.proto says what is asked
    desk.py          what both share: the client, the places, the drain

Needs the extra `serve` (starlette, uvicorn, grpcio); importing this package alone needs nothing.
"""
