"""A built-in English-German corpus: a synchronous grammar, endless, seeded, of known entropy.

    train = Grammar("train", 20_000)
    train[0]  # ("Because the old woman gets up ...", "Weil die alte Frau ... aufsteht, ...")

Non-autoregressive models suffer from *multimodality*: a source has many translations, and
positions that are predicted independently mix them (Gu et al. 2018, arXiv:1711.02281). Natural
corpora hide how much of it they have. Here `ambiguity` sets it, and the conditional entropy
H(German | English) is known exactly, sentence by sentence, in bits.

How: an English sentence is drawn without a look at German, by rules under which it has one
derivation. To say a derivation in German is to answer independent questions: which synonym,
which word order, word or digits, preterite or perfect, du or ihr or Sie. With probability
`ambiguity` the answer is uniform among all k, otherwise it is the usual one. Different answers
make different sentences, so the entropy of a sentence is the sum over its questions.

Rooms: `lexicon` has the words, `inflection` their forms, `nouns` and `clauses` the rules, which
say every phrase in both languages side by side; `choices` asks the questions, `derivation` rolls
the dice of the English side, `corpus` makes it a corpus.
"""

from nar.data.grammar.corpus import SPLITS, Grammar, GrammarConfig, split_of

__all__ = ["SPLITS", "Grammar", "GrammarConfig", "split_of"]
