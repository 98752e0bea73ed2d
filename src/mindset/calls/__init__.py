"""The record of every request to a language model, and the one dialog tree; knows no model and no network."""
