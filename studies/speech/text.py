"""English sentences out of three Debian packages: a political FAQ, a collection of quotations, a system handbook."""

import gzip
import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .debian import package_members

PACKAGES = ("anarchism", "fortunes", "debian-handbook")

# A word of fewer occurrences is often a name, a misprint or a command.
MIN_OCCURRENCES = 3
MAX_LETTERS = 14
ONE_LETTER_WORDS = {"a", "i", "o"}

NOTES = re.compile(r"\[\*\*.*?\]|\[\[?\d+\]?\]|\(https?:[^)]*\)|https?:\S+", re.DOTALL)
BLOCKS = re.compile(r"<(script|style|pre|head)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
PARAGRAPHS = re.compile(r"</?(?:p|div|h\d|li|td|th|tr|dt|dd|ul|ol|table)\b[^>]*>", re.IGNORECASE)
# A sentence ends with its mark, and the next begins with a capital letter, so "e.g. this" does not end one.
ENDS = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z])")
SENTENCE = re.compile(r"[\"'(]*([A-Z][A-Za-z ,;:'\"()-]*)[.!?][\"')\]]*")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


def markdown_text(content: bytes) -> str:
    """Markdown without its marks; paragraphs stay apart."""
    text = NOTES.sub(" ", gzip.decompress(content).decode(errors="replace"))
    text = re.sub(r"^[ \t]*(#+.*|[*+>-] )", "", text, flags=re.MULTILINE)
    return re.sub(r"[*_\[\]`]", "", text)


def html_text(content: bytes) -> str:
    """The running text of an HTML page; paragraphs stay apart."""
    text = PARAGRAPHS.sub("\n\n", BLOCKS.sub(" ", content.decode(errors="replace")))
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def fortune_text(content: bytes) -> str:
    """Quotations, one a paragraph: a line with a percent sign stands between two, and two dashes begin an author."""
    text = re.sub(r"^%$", "\n\n", content.decode(errors="replace"), flags=re.MULTILINE)
    return re.sub(r"^\s*--.*$", "\n\n", text, flags=re.MULTILINE)


def page_texts(deb: Path) -> Iterator[str]:
    """The running text of every page of one of the three packages, in the order of their names."""
    pages = {}
    for name, content in package_members(deb):
        if name.endswith(".md.gz"):
            pages[name] = markdown_text(content)
        elif "/html/en-US/" in name and name.endswith(".html"):
            pages[name] = html_text(content)
        # Beside each file of quotations lie its index and a link, and both have a suffix.
        elif "/games/fortunes/" in name and "." not in Path(name).name:
            pages[name] = fortune_text(content)
    yield from (pages[name] for name in sorted(pages))


def page_sentences(text: str) -> Iterator[list[str]]:
    """The words of each sentence of letters and plain punctuation, in lower case."""
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"')
    for paragraph in re.split(r"\n\s*\n", text):
        for piece in ENDS.split(" ".join(paragraph.split())):
            if match := SENTENCE.fullmatch(piece):
                yield WORD.findall(match[1].lower())


def is_plausible(words: list[str], occurrences: Counter) -> bool:
    """Whether all words are frequent enough, and none is an initial or a chain of letters."""
    return all(
        occurrences[word] >= MIN_OCCURRENCES
        and len(word) <= MAX_LETTERS
        and (len(word) > 1 or word in ONE_LETTER_WORDS)
        for word in words
    )


def read_sentences(debs: list[Path], *, min_words: int, max_words: int) -> list[str]:
    """Distinct sentences of a to z, apostrophe and space, in the order of the packages and their pages.

    Parameters
    ----------
    debs : list of Path
        The packages' files.
    min_words, max_words : int
        Bounds on a sentence's words, inclusive.

    Returns
    -------
    list of str
        12,287 of 4 to 10 words from the packages of Debian 12.
    """
    sentences = [words for deb in debs for text in page_texts(deb) for words in page_sentences(text)]
    occurrences = Counter(word for words in sentences for word in words)
    chosen = (words for words in sentences if min_words <= len(words) <= max_words and is_plausible(words, occurrences))
    return list(dict.fromkeys(" ".join(words) for words in chosen))
