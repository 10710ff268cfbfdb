"""Commands that compare this package's speed and memory with the references, side by side in one run."""
