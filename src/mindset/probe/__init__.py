"""Read-only views of a model: how well it speaks, how fast, how far from its teacher.

Knows nothing of training, of editing or of the user interface. Invariant: a model that was probed is bit for
bit the model it was before, in the same mode, with the same hooks.
"""
