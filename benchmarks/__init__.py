"""Every claim of this project as a command: `python -m benchmarks.NAME [--quick] [--seed N]`."""
