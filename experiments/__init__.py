"""Experiments: what is trained on which text and decoded by whom; `python -m experiments list`."""
