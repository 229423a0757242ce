"""Text: the built-in grammar, folders, TFDS; tokens, and batches of few shapes."""
