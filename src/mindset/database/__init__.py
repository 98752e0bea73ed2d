"""An engine from a URL, numbered migrations, full text; what is stored is the callers' business."""
