"""What was done to a model folder, in order, and how to take it back; the kinds of edits are the callers' business."""
