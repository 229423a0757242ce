"""A model with its tokenizer: text in, text out."""

import concurrent.futures
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from nar.core import TARGET, Bundle, Decoder, Output, Source, role, room
from nar.data.batching import evaluation_batches
from nar.data.text import hash_files
from nar.data.tokenizer import FILE, PAD, Tokenizer, Vocabulary, shared
from nar.decoders import Greedy, make
from nar.decoders.noisy_parallel import RERANKER
from nar.drafters.corpus import CORPUS, SuffixArray
from nar.drafters.draft_model import DRAFT
from nar.drivers import decode
from nar.ends import ending
from nar.errors import NarError
from nar.files import read_json
from nar.lines import one_line, read_texts, translations
from nar.model import Fitted
from nar.ngram import LANGUAGE, read_arpa
from nar.ops import numbered_keys
from nar.patience import Patience
from nar.results import Result, asking, read_results
from nar.sharding import make_mesh, place, place_batch
from nar.streaming import continuations, unfold

if TYPE_CHECKING:
    from nar.pretrained.chat import ChatTemplate

Places = Sequence[int] | Int[np.ndarray, " rows"]

PADDING = 8192
"""A program, though it was compiled before, costs about as much as so many padded positions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translator:
    """A model that can be given text; `nar.load` makes one from a directory.

    Attributes:
        model: any model of the Protocol, or a `Bundle`.
        tokenizer: its vocabulary.
        weights: an id that changes with the weights; reports and journals name it.
        ids: of a bundle, the same of each of its members, by role.
        template: how its tokenizer writes a conversation; None: it does not.
        whole: whether texts spell out all special tokens of a prompt, as a template's do.
    """

    model: Any
    tokenizer: Vocabulary
    weights: str
    ids: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
    template: "ChatTemplate | None" = dataclasses.field(default=None, compare=False)
    whole: bool = False

    def translate(
        self,
        texts: Sequence[str],
        decoder: Decoder | None = None,
        *,
        batch_size: int = 64,
        key: Key[Array, ""] | None = None,
        truncate: bool = False,
        stop: Sequence[str] = (),
        stop_tokens: Sequence[str] = (),
    ) -> list[str]:
        """The translation of each text, in order; a decoder-only model continues it.

        A warning counts the outputs that are cut at the decoder's `max_length`.

        Args:
            texts: line breaks in them are read as spaces by a model with an encoder, and none are
                written. An empty or blank text stays empty.
            decoder: how; by default greedy, with this model's `max_length`.
            batch_size: the most rows decoded together, of similar lengths.
            key: of random decoders; a text's sample depends on the key and on its place alone.
            truncate: cut texts of more tokens than `room`, and warn.
            stop: strings that end an output before them.
            stop_tokens: pieces that end an output as EOS does.

        Raises:
            IncompatibleModel: the model lacks what the decoder needs.
            NarError: texts are too long, which are named, counted from 1; or a stop token is none.

        Warns:
            UserWarning: texts, which are named, that were cut at the most tokens that may be
                written, or for which the model's logits were NaN.
        """
        found = self.results(
            texts,
            decoder,
            batch_size=batch_size,
            key=key,
            truncate=truncate,
            stop=stop,
            stop_tokens=stop_tokens,
        )
        return [one_line(result.text) for result in found]

    def results(
        self,
        texts: Sequence[str],
        decoder: Decoder | None = None,
        *,
        scores: bool = False,
        nbest: int = 0,
        batch_size: int = 64,
        key: Key[Array, ""] | None = None,
        truncate: bool = False,
        stop: Sequence[str] = (),
        stop_tokens: Sequence[str] = (),
    ) -> list[Result]:
        """As `translate`, with line breaks, scores, n-best lists, and how each output ended.

        `scores` asks the decoder for them, where it gives none by itself; `nbest` is the most
        outputs to keep for a text, each with its score. The others are as for `translate`.

        Raises:
            IncompatibleModel: the model lacks what the decoder needs.
            NarError: as `translate`; or the decoder has no scores, or keeps one output a text.
        """
        decoder = Greedy(max_length=self.max_length) if decoder is None else decoder
        translator, (stop,) = ending(self, [stop], stop_tokens)
        windows = translations(
            translator,
            texts,
            asking(decoder, translator.model, scores=scores, nbest=nbest),
            batch_size=batch_size,
            key=key,
            truncate=truncate,
            stop=stop,
            nbest=nbest,
        )
        return list(itertools.chain.from_iterable(windows))

    def stream(
        self,
        texts: Sequence[str],
        decoder: Decoder | None = None,
        *,
        stop: Sequence[str] | Sequence[Sequence[str]] = (),
        stop_tokens: Sequence[str] = (),
        limits: Sequence[int] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Iterator[list[str]]:
        """Each text's new piece after every step, as soon as it is certain.

        A piece holds whole characters, and nothing that may turn out to be a stop string. All
        pieces of a text together are what `translate` gives, line breaks as they are; but for bytes
        that are no whole character, with which some tokenizers spoil those before them.

        Args:
            texts: decoded together, as one batch.
            decoder: how; by default greedy, with this model's `max_length`.
            stop: strings that end an output before them; the same for all, or a sequence a text.
            stop_tokens: pieces that end an output as EOS does.
            limits: the most tokens to write for each text.
            key: of random decoders.

        Raises:
            IncompatibleModel: the model lacks what the decoder needs.
            NarError: a text is too long, or a stop string or a limit is none.
        """
        decoder = Greedy(max_length=self.max_length) if decoder is None else decoder
        return unfold(
            self, texts, decoder, stop=stop, stop_tokens=stop_tokens, limits=limits, key=key
        )

    @property
    def chat(self) -> "ChatTemplate":
        """The tokenizer's chat template, which makes prompts for `verbatim` of conversations.

        Raises:
            NarError: there is none, it is damaged, or the model has an encoder.
        """
        if role(self.model).spec.encoder:
            raise NarError("a model with an encoder goes on with no conversation: it translates")
        if self.template is None:
            raise NarError("the model's tokenizer has no chat template (chat_template.jinja)")
        self.template.check()
        return self.template

    @property
    def verbatim(self) -> "Translator":
        """The same, for prompts that spell out all their special tokens.

        `translator.verbatim.translate([translator.chat.render("Hello")])` is a model's answer.
        """
        return dataclasses.replace(self, whole=True)

    @property
    def max_length(self) -> int:
        """The most tokens to write where nobody says: 128, or what the model's positions allow.

        A decoder-only model leaves half of its positions to the prompt.
        """
        spec = role(self.model).spec
        if spec.max_target is None:
            return Decoder.max_length
        most = spec.max_target if spec.encoder else max(spec.max_target // 2, 1)
        return min(Decoder.max_length, most)

    def make_decoder(self, description: str, max_length: int | None = None) -> Decoder:
        """A decoder from text, `"jacobi:block=5"`, that this model can run.

        Args:
            description: as for `nar.make`, or the path of a `tuned.json` that `nar tune` wrote.
            max_length: used where the description sets none; by default the model's.

        Raises:
            IncompatibleModel: the model lacks what the decoder needs.
            NarError: an unknown decoder or option, a length that does not fit, or a file that was
                tuned for other weights.
        """
        from nar.bench.tuned import described

        description = described(description, self.weights)
        decoder = make(
            description, max_length=self.max_length if max_length is None else max_length
        )
        if max_length not in (None, decoder.max_length):
            raise NarError(f"{description!r} and max_length={max_length} contradict each other")
        self.room(decoder)
        return decoder

    def room(self, decoder: Decoder) -> int | None:
        """The most tokens of a source that a decoder can be given; None: any number.

        Raises:
            IncompatibleModel: the model lacks what the decoder needs.
            NarError: the decoder's `max_length` does not fit, however short the source.
        """
        decoder.check(self.model, Source.of([[0]]))
        return room(decoder, self.model)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The sources that stand for texts; for a decoder-only model, prompts to continue."""
        if role(self.model).spec.encoder:
            return self.tokenizer.encode([one_line(text) for text in texts])
        if self.whole:
            return self.tokenizer.encode_whole(texts)
        return self.tokenizer.encode(texts, prompt=True)

    def fitting(
        self, texts: Sequence[str], decoder: Decoder, numbers: Sequence[int]
    ) -> list[list[int]]:
        """The sources of some of the texts, by number, none of them too long for a decoder.

        Raises:
            IncompatibleModel: the model lacks what the decoder needs.
            NarError: a text is too long, which is named, counted from 1.
        """
        sources, room = self.encode([texts[i] for i in numbers]), self.room(decoder)
        for i, source in zip(numbers, sources, strict=True):
            if room is not None and len(source) > room:
                raise NarError(f"text {i + 1} has {len(source)} tokens: at most {room} fit")
        return sources

    def cut(self, source: Sequence[int], room: int) -> list[int]:
        """A source's first `room` tokens, the last of them EOS; of a prompt the last ones.

        They come after the tokens, such as BOS, with which the tokenizer begins every prompt.
        """
        if role(self.model).spec.encoder:
            return [*source[: room - 1], source[-1]]
        empty = self.encode([""])[0]
        begin = empty if list(source[: len(empty)]) == empty else []
        return [*begin, *source[len(source) - room + len(begin) :]][:room]

    def outputs(
        self,
        sources: Sequence[Sequence[int]],
        decoder: Decoder,
        *,
        batch_size: int = 64,
        key: Key[Array, ""] | None = None,
        numbers: Sequence[int] | None = None,
        stop: Sequence[str] = (),
        nbest: int = 0,
    ) -> Iterator[tuple[list[int], list[Result]]]:
        """Decodes batch by batch, long sources first, rows split over all devices.

        Args:
            sources: token ids, as `encode` gives them.
            decoder: how.
            batch_size: rows decoded together, rounded up to a multiple of the devices.
            key: of random decoders.
            numbers: of the sources, from which and from `key` their random keys follow; by default
                their places.
            stop: strings that end an output before them.
            nbest: how many outputs a source to keep beside.

        Yields:
            The places of a batch's sources, and what became of them.
        """
        if not sources:
            return
        mesh, model = self._on_all_devices
        batch_size += -batch_size % mesh.shape["data"]
        key = jax.random.key(0) if key is None else key
        numbers = range(len(sources)) if numbers is None else numbers
        patience, late, width = Patience(decoder, role(self.model).spec), list[int](), 0

        def run(places: Places, source: Source, limit: np.ndarray) -> Output:
            folded = np.zeros(batch_size, np.int32)
            folded[: len(places)] = [numbers[place] for place in places]
            batch = place_batch(source.replace(limit=limit), mesh)
            with jax.set_mesh(mesh):
                return jax.device_get(decode(decoder, model, batch, key=numbered_keys(key, folded)))

        def read(places: Places, output: Output, rows: Any) -> tuple[list[int], list[Result]]:
            kept = jax.tree.map(lambda x: x[rows], output.replace(stats=None))
            begun = [sources[place] for place in places]
            return [*map(int, places)], read_results(self, begun, kept, stop=stop, nbest=nbest)

        batches = evaluation_batches(
            sources, batch_size, max_length=self.room(decoder), padding=PADDING
        )
        for places, source in _prepared([*batches], run):
            limit = patience.limit(source, len(places))
            output = run(places, source, limit)
            cut = patience.cut(output, limit)[: len(places)]
            if cut.any():
                late, width = [*late, *places[cut]], max(width, source.tokens.shape[1])
            yield read(places[~cut], output, np.flatnonzero(~cut))
        for start in range(0, len(late), batch_size):
            places = late[start : start + batch_size]
            rows = [*(sources[place] for place in places), *[[PAD]] * (batch_size - len(places))]
            limit = np.where(np.arange(batch_size) < len(places), decoder.max_length, 1)
            source = Source.of(rows, width=width)  # a shape that has its program
            yield read(places, run(places, source, limit.astype(np.int32)), slice(len(places)))

    def texts(
        self, sources: Sequence[Sequence[int]], outputs: Sequence[Iterable[int]]
    ) -> list[str]:
        """The texts of outputs; a continuation as it goes on from its prompt, blanks and all."""
        if role(self.model).spec.encoder:
            return self.tokenizer.decode(outputs)
        eos = role(self.model).spec.eos  # some prompts begin with it, and texts end at it
        prompts = [[token for token in source if token != eos] for source in sources]
        return continuations(self.tokenizer, prompts, outputs)

    @functools.cached_property
    def _on_all_devices(self) -> tuple[Mesh, Any]:
        mesh = make_mesh()
        return mesh, place(self.model, mesh)


def _prepared(
    batches: Sequence[tuple[Places, Source]], run: Callable[[Places, Source, np.ndarray], Any]
) -> Iterator[tuple[Any, Source]]:
    """The batches; the programs of further shapes are made ready while the first one runs."""
    _, *further = dict.fromkeys(source.tokens.shape for _, source in batches)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ready = {}
        for shape in further:
            rows, width = shape
            blank = Source.of([[PAD]] * rows, width=width)
            ready[shape] = pool.submit(run, (), blank, np.ones(rows, np.int32))
        for places, source in batches:
            if source.tokens.shape in ready:
                ready.pop(source.tokens.shape).result()
            yield places, source


def load(
    directory: str | os.PathLike[str],
    *,
    draft: str | os.PathLike[str] | None = None,
    reranker: str | os.PathLike[str] | None = None,
    corpus: str | os.PathLike[str] | None = None,
    language: str | os.PathLike[str] | None = None,
) -> Translator:
    """A trained model and its tokenizer.

    Args:
        directory: as experiments leave them in `runs/NAME/model`, or in Hugging Face's layout:
            `config.json` says which it is.
        draft: directory of a model of the same vocabulary, whose table may be larger or smaller: a
            smaller model for `speculative`, one that predicts in parallel for `parallel-draft`.
        reranker: directory of a causal model with the same vocabulary, for `noisy-parallel`.
        corpus: a file of texts like those to write, one a line, for `corpus-lookup`.
        language: an ARPA file of n-grams of the tokenizer's pieces, as `nar ngram` writes them, for
            `ctc-beam`.

    Raises:
        NarError: a directory holds no model or no tokenizer, or one that is damaged or not
            supported, or they do not belong together; the corpus is empty; or the ARPA file is
            damaged.
    """
    translator = _load_one(pathlib.Path(directory))
    others: dict[str, Any] = {}
    ids = {TARGET: translator.weights}
    for name, path in ((DRAFT, draft), (RERANKER, reranker)):
        if path is None:
            continue
        other = _load_one(pathlib.Path(path))
        try:
            known = shared(translator.tokenizer, other.tokenizer)
        except NarError as error:
            raise NarError(
                f"{path} and {directory} have different vocabularies: a {name} model must share "
                f"the target's ({error})"
            ) from error
        # What predicts in parallel is decoded by itself, in its own vocabulary.
        fit = translator.model if other.model.spec.causal else other.model
        others[name] = Fitted.to(fit.spec.vocab_size, other.model, known)
        ids[name] = other.weights
    if corpus is not None:
        others[CORPUS] = SuffixArray.of(translator.tokenizer.encode_outputs(read_texts(corpus)))
        ids[CORPUS] = hash_files(pathlib.Path(corpus))[:12]
    if language is not None:
        pieces = translator.tokenizer.pieces(range(translator.model.spec.vocab_size))
        others[LANGUAGE] = read_arpa(language, pieces)
        ids[LANGUAGE] = hash_files(pathlib.Path(language))[:12]
    if not others:
        return translator
    model = Bundle.of(**{TARGET: translator.model}, **others)
    return dataclasses.replace(translator, model=model, weights="+".join(ids.values()), ids=ids)


def check_directory(directory: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a directory that looks like a model's; nothing is loaded.

    Raises:
        NarError: it is none.
    """
    from nar.training.checkpoint import CONFIG

    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise NarError(f"{directory} is no directory: it must be one that holds a saved model")
    if not (directory / CONFIG).is_file():
        raise NarError(f"{directory} holds no saved model: there is no {CONFIG}")
    return directory


def _load_one(directory: pathlib.Path) -> Translator:
    from nar.training.checkpoint import CONFIG, WEIGHTS, load_model

    check_directory(directory)
    if "model_type" in read_json(directory / CONFIG):
        from nar.pretrained import load_pretrained

        return load_pretrained(directory)
    model, tokenizer = load_model(directory), Tokenizer.load(directory)
    if tokenizer.vocab_size > model.config.vocab_size:  # a table may be padded
        raise NarError(
            f"{directory / FILE} has {tokenizer.vocab_size} pieces, and the model beside it "
            f"{model.config.vocab_size}: they do not belong together"
        )
    files = [directory / name for name in (CONFIG, WEIGHTS, FILE)]
    return Translator(model=model, tokenizer=tokenizer, weights=hash_files(*files)[:12])
