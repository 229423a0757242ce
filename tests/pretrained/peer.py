"""What transformers makes of a directory, batch by batch: logits, greedy outputs, beam search."""

import pathlib
from collections.abc import Sequence

import numpy as np
import torch
import transformers

from nar.core import Source


class Peer:
    """A model as transformers loads it, in float32.

    Args:
        directory: of the model.
        batch_size: sources decoded together.
    """

    def __init__(self, directory: pathlib.Path, batch_size: int = 50):
        config = transformers.AutoConfig.from_pretrained(directory)
        kind = "Seq2SeqLM" if config.is_encoder_decoder else "CausalLM"
        load = getattr(transformers, f"AutoModelFor{kind}").from_pretrained
        self.directory, self.batch_size = directory, batch_size
        self.encoder = config.is_encoder_decoder
        self.model = load(directory, dtype=torch.float32).eval()
        generation = self.model.generation_config
        ends = generation.eos_token_id
        self.ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.start, pad = generation.decoder_start_token_id, config.pad_token_id
        generation.pad_token_id = [*self.ends, 0][0] if pad in (None, -1) else pad

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of sources, or of prompts."""
        return transformers.AutoTokenizer.from_pretrained(self.directory)(list(texts))["input_ids"]

    def logits(self, sources: list[list[int]], targets: list[list[int]]) -> list[np.ndarray]:
        """From which each token of the targets would be chosen, `[tokens, vocab]` a row."""
        found = []
        for at in range(0, len(sources), self.batch_size):
            batch = sources[at : at + self.batch_size], targets[at : at + self.batch_size]
            if self.encoder:
                fed = [[self.start, *target[:-1]] for target in batch[1]]
                fed = self._padded(batch[0]) | {"decoder_input_ids": self._padded(fed)["input_ids"]}
            else:
                fed = [[*source, *target[:-1]] for source, target in zip(*batch, strict=True)]
                fed = self._padded(fed)
            with torch.no_grad():
                logits = self.model(**fed).logits.numpy()
            for row, source, target in zip(logits, *batch, strict=True):
                first = 0 if self.encoder else len(source) - 1
                found.append(row[first : first + len(target)])
        return found

    def greedy(self, sources: list[list[int]], most: int) -> list[list[int]]:
        """Outputs, any end written as the first one."""
        # One token more, and cut: the last one may be forced to be an end.
        return [self._cut(row, most) for row in self._generate(sources, most + 1)[0]]

    def beam(
        self, sources: list[list[int]], most: int, beams: int
    ) -> tuple[list[list[int]], np.ndarray]:
        """The best outputs and their scores; no early stopping, length penalty 1."""
        options = {"num_beams": beams, "length_penalty": 1.0, "early_stopping": False}
        found, scores = self._generate(sources, most, **options)
        return [self._cut(row, most) for row in found], np.array(scores)

    def _generate(self, sources: list[list[int]], most: int, **options):
        outputs, scores = [], []
        options = {"num_beams": 1, "max_new_tokens": most, "do_sample": False, **options}
        for at in range(0, len(sources), self.batch_size):
            fed = self._padded(sources[at : at + self.batch_size], left=not self.encoder)
            with torch.no_grad():
                found = self.model.generate(
                    **fed, **options, return_dict_in_generate=True, output_scores=True
                )
            given = 1 if self.encoder else fed["input_ids"].shape[1]
            outputs += found.sequences[:, given:].tolist()
            scores += found.get("sequences_scores", torch.zeros(len(outputs))).tolist()
        return outputs, scores

    def _cut(self, row: list[int], most: int) -> list[int]:
        row = row[:most]
        end = next((i for i, token in enumerate(row) if token in self.ends), None)
        return row if end is None else [*row[:end], self.ends[0]]

    def _padded(self, rows: list[list[int]], *, left: bool = False) -> dict[str, torch.Tensor]:
        source = Source.of(rows, pad=self.model.generation_config.pad_token_id)
        tokens, length = np.array(source.tokens), np.array(source.length)
        mask = np.arange(tokens.shape[1]) < length[:, None]
        if left:
            tokens, mask = (
                np.stack([np.roll(x, tokens.shape[1] - n) for x, n in zip(y, length, strict=True)])
                for y in (tokens, mask)
            )
        ids, mask = torch.tensor(tokens, dtype=torch.long), torch.tensor(mask, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": mask}
