"""Who drafts: one file a drafter."""

from nar.drafters.corpus import SuffixArray
from nar.drafters.drafter import Draft, Drafter, Layout, Outcome

__all__ = ["Draft", "Drafter", "Layout", "Outcome", "SuffixArray"]
