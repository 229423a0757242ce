"""How good and how fast decoders are."""
