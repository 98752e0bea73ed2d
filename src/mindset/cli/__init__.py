"""The command line: one command per file, each of which parses, makes one library call and renders.

Does not know torch: a command imports its library call when it runs, so that every `--help` is quick.
"""
