"""What the network emits: characters, words, or pieces of words found by byte-pair encoding. Id 0 is the blank.

Every kind of unit has `vocab_size`, which counts the blank, `encode(text) -> (U,) int32` without blanks, and
`decode(ids) -> text`, which leaves blanks out.
"""

import importlib.util
import io
from collections.abc import Iterable

import numpy as np

BLANK = 0


class SymbolUnits:
    """One unit for each symbol.

    Parameters
    ----------
    symbols : iterable of str
        Symbol k has id k + 1.
    separator : str
        What stands between two symbols of a text; empty for characters.
    """

    def __init__(self, symbols: Iterable[str], *, separator: str = ""):
        self.symbols = list(symbols)
        self.separator = separator
        self.ids = {symbol: id for id, symbol in enumerate(self.symbols, start=1)}
        self.vocab_size = len(self.symbols) + 1

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, (U,) int32; ValueError for a symbol that is none of the units."""
        symbols = text.split(self.separator) if self.separator else list(text)
        unknown = [symbol for symbol in symbols if symbol not in self.ids]
        if unknown:
            raise ValueError(f"no unit for {unknown[0]!r} in {text!r}")
        return np.array([self.ids[symbol] for symbol in symbols], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return self.separator.join(self.symbols[id - 1] for id in ids if id != BLANK)


class PieceUnits:
    """Pieces of words, found by byte-pair encoding (Sennrich, Haddow and Birch 2016) in a list of texts.

    sentencepiece always has a piece for what it does not know. Its id is 0, so the blank takes its place.

    Parameters
    ----------
    size : int
        Number of pieces; `vocab_size` is one more.
    texts : list of str
        The training transcripts.
    """

    def __init__(self, size: int, texts: list[str]):
        if importlib.util.find_spec("sentencepiece") is None:
            raise RuntimeError('pieces of words need sentencepiece: pip install -e ".[speech]"')
        import sentencepiece

        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=size + 1,
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=BLANK,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        self.vocab_size = size + 1

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, (U,) int32; ValueError for a text with a character that no training text has."""
        ids = np.array(self.processor.encode(text), np.int32)
        if (ids == BLANK).any():
            raise ValueError(f"no unit for a character in {text!r}")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return self.processor.decode([int(id) for id in ids if id != BLANK])


Units = SymbolUnits | PieceUnits


def train_units(units: int | str, texts: list[str]) -> Units:
    """Units for a corpus.

    Parameters
    ----------
    units : int or str
        "characters", or a number of pieces.
    texts : list of str
        The training transcripts.

    Returns
    -------
    SymbolUnits or PieceUnits
    """
    if units == "characters":
        return SymbolUnits(sorted(set().union(*texts)))
    if isinstance(units, int):
        return PieceUnits(units, texts)
    raise ValueError(f'units must be "characters" or a number of pieces, not {units!r}')
