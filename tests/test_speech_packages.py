"""Where the speech studies get sound and text from: Debian packages built here, their readers, and the synthesiser."""

import gzip
import hashlib
import io
import subprocess
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from studies.speech import debian, espeak
from studies.speech.debian import package_file, package_members
from studies.speech.espeak import VOICES, Line, cast_voices, synthesise
from studies.speech.festvox import Phone, clean_transcript, read_festvox, read_labels, read_phones
from studies.speech.text import read_sentences
from tests.debs import write_deb

FILES = {"./usr/share/a.txt": b"one", "./usr/share/b.bin": bytes(range(256)) * 40, "./usr/c.txt": b""}


@pytest.mark.parametrize("packing", ["xz", "gz"])
def test_a_package_gives_its_files(tmp_path, packing):
    deb = write_deb(tmp_path / "x_1_all.deb", FILES, packing=packing)
    assert dict(package_members(deb)) == FILES
    assert [name for name, _ in package_members(deb, suffix=".txt")] == ["./usr/share/a.txt", "./usr/c.txt"]


def test_what_is_no_package_says_so(tmp_path):
    deb = write_deb(tmp_path / "x_1_all.deb", FILES)
    whole = deb.read_bytes()
    deb.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match=r"x_1_all\.deb ends inside its member data\.tar\.xz"):
        list(package_members(deb))
    deb.write_bytes(whole.replace(b"data.tar.xz ", b"data.tar.zst"))
    with pytest.raises(ValueError, match="packed by zstd"):
        list(package_members(deb))
    deb.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"x_1_all\.deb is not a Debian package"):
        list(package_members(deb))


def test_a_package_is_fetched_once(tmp_path, monkeypatch):
    calls = []

    def apt_get(command, cwd, **settings):
        calls.append(command)
        write_deb(Path(cwd) / "x_1_all.deb", FILES)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(debian.subprocess, "run", apt_get)
    cache = tmp_path / "cache"
    path = package_file("x", cache)
    assert path == package_file("x", cache) == cache / "x_1_all.deb"
    assert calls == [["apt-get", "download", "x"]]
    assert list(cache.iterdir()) == [path]
    assert package_file("x", tmp_path / "elsewhere", data=cache) == path


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    failed = subprocess.CompletedProcess([], 100, "", "W: a\nE: Unable to locate package x\n")
    monkeypatch.setattr(debian.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        RuntimeError, match=r"Unable to locate package x.*apt-get update.*Debian package x .*--data PATH"
    ):
        package_file("x", tmp_path)
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"apt-get is not installed here.*Debian package x .*--data PATH"):
        package_file("x", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no x_\*\.deb"):
        package_file("x", tmp_path, data=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_on_record_must_have_its_digest(tmp_path, monkeypatch):
    deb = write_deb(tmp_path / "x_1_all.deb", FILES)
    monkeypatch.setitem(debian.SHA256, deb.name, hashlib.sha256(deb.read_bytes()).hexdigest())
    assert package_file("x", tmp_path) == deb
    deb.write_bytes(deb.read_bytes() + b"\n")
    with pytest.raises(ValueError, match=r"x_1_all\.deb has SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}"):
        package_file("x", tmp_path)


def wave_bytes(samples, rate=16_000):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def test_festvox_joins_texts_and_sounds(tmp_path):
    samples = [np.arange(-50, 50), np.arange(7)]
    files = {
        "./voice/wav/ru_0002.wav": wave_bytes(samples[1]),
        "./voice/etc/txt.done.data": '( ru_0002 "Из-за \\"Аэлиты\\"." )\n( ru_0001 "Б+егал -- ёж!" )\n'.encode(),
        "./voice/wav/ru_0001.wav": wave_bytes(samples[0]),
        "./voice/lab/ru_0001.lab": b"#\n0.1 125 pau\n",
    }
    first, second = read_festvox(write_deb(tmp_path / "festvox-ru_1_all.deb", files))
    assert (first.id, first.text, second.id, second.text) == ("ru_0001", "бегал ёж", "ru_0002", "из за аэлиты")
    np.testing.assert_array_equal(first.samples, samples[0])
    np.testing.assert_array_equal(second.samples, samples[1])
    files["./voice/wav/ru_0001.wav"] = wave_bytes(samples[0], 8000)
    with pytest.raises(ValueError, match=r"ru_0001\.wav has .* \(1, 2, 8000\), not \(1, 2, 16000\)"):
        read_festvox(write_deb(tmp_path / "festvox-ru_1_all.deb", files))


def test_festvox_has_phones_with_times(tmp_path):
    files = {
        "./voice/lab/ru_0002.lab": (
            b"#\n0.10000 125 pau\n0.15000 125 k\n0.20000 125 pau\n0.32000 125 ay\n0.40000 125 pau\n"
        ),
        "./voice/etc/txt.done.data": b'( ru_0002 "b" )\n( ru_0001 "a" )\n',
        "./voice/lab/ru_0001.lab": b"#\n0.05000 125 a\n0.09000 125 a\n",
        "./voice/lab/ru_0003.lab": b"#\n0.05000 125 x\n",
    }
    first, second = read_phones(write_deb(tmp_path / "festvox-ru_1_all.deb", files))
    assert first == [Phone("a", 0.0, 0.05), Phone("a", 0.05, 0.09)]
    assert second == [Phone("k", 0.1, 0.15), Phone("ay", 0.2, 0.32)]
    with pytest.raises(ValueError, match=r"x\.lab begins with '0.1 125 a', not with '#'"):
        read_labels(b"0.1 125 a\n", "x.lab")
    with pytest.raises(ValueError, match=r"x\.lab has 'b' end at 0.1 s, not after 0.1 s"):
        read_labels(b"#\n0.1 125 a\n0.1 125 b\n", "x.lab")


def test_transcripts_keep_letters_only():
    assert clean_transcript("  Он, как-то: +Эхо 5 x  ") == "он как то эхо"


def test_sentences_are_whole_plain_and_distinct(tmp_path):
    markdown = (
        "# It is what we\n\nIt is **what** we\nsay. It is what we say! We say it is what it is. What is it we say? "
        "Say it.\n"
        # A digit, a full stop inside, a link, a letter, a rare word, a long word, a sentence without its end or
        # beginning:
        "We say 3 it is now. It is e.g. what we say. It is [what](a.md) we say. What is b b b we say? "
        "What is rare now?\n\n"
        "Say what muchmorethanaword muchmorethanaword muchmorethanaword is. "
        "Now it is\n\nwhat we say now. It is what we\n\n* Say what it is [1] now.\n\n"
        "It is what it is now and what it is.\n"
    )
    page = (
        "<html><head><title>Now it is what it is.</title></head>"
        "<p>Now we say &#8220;it is&#8221; now.</p><p>We say</p></html>"
    )
    fortunes = "Say it now, we say.\n\t\t-- What Is It\n%\nNow it is what\nwe say.\n"
    names = {
        "anarchism": ("./usr/share/doc/anarchism/markdown/a.md.gz", gzip.compress(markdown.encode())),
        "fortunes": ("./usr/share/games/fortunes/art", fortunes.encode()),
        "handbook": ("./usr/share/doc/debian-handbook/html/en-US/a.html", page.encode()),
    }
    debs = [write_deb(tmp_path / f"{package}_1_all.deb", {name: content}) for package, (name, content) in names.items()]
    assert read_sentences(debs, min_words=4, max_words=7) == [
        "it is what we say",
        "we say it is what it is",
        "what is it we say",
        "say what it is now",
        "say it now we say",
        "now it is what we say",
        "now we say it is now",
    ]
    assert read_sentences(debs, min_words=2, max_words=2) == ["say it"]
    assert "it is what we say" in read_sentences(debs[:1], min_words=5, max_words=5)


def test_voices_are_cast_at_random_within_their_ranges():
    lines = cast_voices(["a"] * 300, VOICES, 0)
    assert lines == cast_voices(["a"] * 300, VOICES, 0) != cast_voices(["a"] * 300, VOICES, 1)
    assert {line.voice for line in lines} == {voice.name for voice in VOICES}
    assert {line.rate for line in lines} == set(range(150, 201))
    assert {line.pitch for line in lines} == set(range(40, 61))


def test_synthesis_is_the_same_on_every_run(monkeypatch):
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(espeak, "UTTERANCES_PER_PROCESS", 2)
    lines = [Line("how would this work", voice.name, 170, 50) for voice in VOICES]
    first = list(synthesise(lines))
    time.sleep(1.1)  # the synthesiser's own seed is the second of the clock
    second = list(synthesise(lines))
    assert len(first) == 3
    for once, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(once, again)
        assert once.dtype == np.int16
        assert 0.5 < len(once) / 22_050 < 2
        assert np.abs(once.astype(int)).max() > 3000
    assert not np.array_equal(first[0], first[1])
    with pytest.raises(RuntimeError, match="espeak-ng has no voice xx-nobody"):
        list(synthesise([Line("no", "xx-nobody", 170, 50)]))
