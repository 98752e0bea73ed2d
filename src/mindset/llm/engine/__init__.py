"""One torch model that answers many callers at once: continuous batching on one thread; knows no client and no log.

transformers batches continuously too (`generate_batch`), and as quickly on a CPU. But its texts share one random seed,
follow no grammar, and lie packed in one row, where the marks of facts would run from one text into the next.
"""
