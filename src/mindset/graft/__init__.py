"""Memory layers: where they sit in each family, how they go in and out, and the model folder.

Knows torch and transformers, but `places`, `packaged` and `sources` import neither before a call needs it,
since the command line parses with them. Does not know training or the user interface.
"""
