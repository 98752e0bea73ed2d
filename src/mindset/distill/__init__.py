"""Distillation: data, losses, stages, the loop and the report. Knows no user interface."""
