"""N-gram language models: trained here or read from ARPA files, and scored inside of jit."""

from nar.ngram.arpa import ends, read_arpa, write_arpa
from nar.ngram.kneser_ney import kneser_ney
from nar.ngram.model import LANGUAGE, NGram

__all__ = ["LANGUAGE", "NGram", "ends", "kneser_ney", "read_arpa", "write_arpa"]
