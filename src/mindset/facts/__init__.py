"""Facts as things that are put into a memory and taken out again, and the damage that they do."""
