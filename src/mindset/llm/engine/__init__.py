"""One torch model that answers many callers at once: continuous batching on one thread; knows no client and no log."""
