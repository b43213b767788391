"""A folder of compiled kernels comes first, and is refused by name where it is not what is wanted.

The tests need no compiler.
"""

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

from lattice.kernels import ptx, ptx_store
from tests.ptx.test_launch import Array

PTX = ".version 9.0\n.target {}\n.visible .entry written(.param .u64 a, .param .u64 b)\n{{ ret; }}\n"
VERSIONS = {"numba": "0.68.1", "numba-cuda": "0.30.4", "cuda": "13.0"}


def double(count, by):
    """Stands for a kernel of this package."""


def halve(count, by):
    """Another one."""


DOUBLE, HALVE = SimpleNamespace(py_func=double), SimpleNamespace(py_func=halve)
ARGUMENTS, TYPES = (3, 4), ("int64", "int64")


@pytest.fixture
def world(monkeypatch, tmp_path):
    """No compiler, no cache, and a driver that takes every text; `loaded` are those texts."""

    def compile_kernel(kernel, arguments, cc):
        raise RuntimeError("there is no compiler")

    world = SimpleNamespace(loaded=[], top=tmp_path / "kernels")
    monkeypatch.setattr(ptx, "compile_kernel", compile_kernel)
    monkeypatch.setattr(ptx, "load", lambda text: world.loaded.append(text) or text)
    monkeypatch.setattr(ptx_store.numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LATTICE_PTX", str(world.top))
    monkeypatch.delenv("LATTICE_PTX_ONLY", raising=False)
    for cc in ((8, 0), (9, 0)):
        ptx_store.write(world.top, cc, [(DOUBLE, TYPES, PTX.format(ptx_store.architecture(cc)))], VERSIONS)
    return world


def make(kernel=DOUBLE, cc=(9, 0), arguments=ARGUMENTS):
    return ptx._make(kernel, arguments, cc)


def refused(text, world, kernel=DOUBLE, cc=(9, 0)):
    """The kernel is refused with a text, and nothing reached the driver."""
    with pytest.raises(RuntimeError, match=text) as caught:
        make(kernel, cc)
    assert not world.loaded
    return str(caught.value)


def file_of(world, target="sm_90"):
    (path,) = (world.top / target).glob("*.ptx")
    return path


def test_a_kernel_of_the_folder_needs_no_compiler(world):
    assert ".target sm_90" in make() and ".target sm_80" in make(cc=(8, 0))
    name = "tests.ptx.test_folder.double(int64, int64) for sm_90 of lattice.kernels="
    assert world.loaded[0].startswith(f"// {name}") and " tests.ptx=" in world.loaded[0].partition("\n")[0]


def test_names_of_files_hold_no_version_of_a_compiler(world, monkeypatch):
    before = file_of(world).name
    monkeypatch.setattr(ptx_store, "compiler", lambda: ("another", "release"))
    assert make() in world.loaded
    ptx_store.write(world.top, (9, 0), [(DOUBLE, TYPES, PTX.format("sm_90"))], {"numba": "another"})
    assert file_of(world).name == before


def test_bfloat16_is_its_bits_and_numbers_have_types():
    import ml_dtypes

    arguments = (Array(0, (2, 3), ml_dtypes.bfloat16), Array(0, (1,), np.float16), 1, True, 0.5, np.float32(1))
    assert ptx.type_names(arguments) == ("uint16[2]", "float16[1]", "int64", "int64", "float64", "float32")


def test_the_folder_comes_before_the_cache(world, monkeypatch):
    path = ptx_store.cached(DOUBLE, TYPES, (9, 0))
    ptx_store.keep(path, "of the cache")
    assert make() != "of the cache"
    monkeypatch.delenv("LATTICE_PTX")
    assert make() == "of the cache"


def test_what_the_folder_lacks_comes_from_the_cache_or_is_compiled(world, monkeypatch):
    with pytest.raises(RuntimeError, match="there is no compiler"):
        make(HALVE)
    ptx_store.keep(ptx_store.cached(HALVE, TYPES, (9, 0)), "of the cache")
    assert make(HALVE) == "of the cache"
    monkeypatch.setattr(ptx, "compile_kernel", lambda *arguments: PTX.format("compiled"))
    assert ".target compiled" in make(DOUBLE, arguments=(3, 0.5))


def test_nothing_but_the_folder(world, monkeypatch):
    monkeypatch.setenv("LATTICE_PTX_ONLY", "1")
    ptx_store.keep(ptx_store.cached(HALVE, TYPES, (9, 0)), "of the cache")
    said = refused(
        r"LATTICE_PTX_ONLY=1, but .*sm_90 lacks tests\.ptx\.test_folder\.halve\(int64, int64\) for sm_90", world, HALVE
    )
    assert str(world.top) in said
    assert make()
    monkeypatch.delenv("LATTICE_PTX")
    with pytest.raises(RuntimeError, match="LATTICE_PTX_ONLY=1, but LATTICE_PTX names no folder"):
        make()
    monkeypatch.setenv("LATTICE_PTX_ONLY", "yes")
    with pytest.raises(RuntimeError, match="LATTICE_PTX_ONLY is 'yes', expected 0 or 1"):
        make()


def test_a_folder_that_is_not_there(world, monkeypatch):
    monkeypatch.setenv("LATTICE_PTX", str(world.top / "nowhere"))
    refused("LATTICE_PTX is .*nowhere, which is no folder", world)
    (world.top / "nowhere").mkdir()
    refused("nowhere, which holds no compiled kernels, expected sm_90", world)
    monkeypatch.setenv("LATTICE_PTX", str(file_of(world)))
    refused("which is no folder", world)
    monkeypatch.setenv("LATTICE_PTX", str(world.top / "sm_90"))
    assert refused("the folder of one architecture, expected the one that it lies in", world).endswith(str(world.top))
    monkeypatch.chdir(world.top / "sm_90")
    monkeypatch.setenv("LATTICE_PTX", ".")
    assert refused("the folder of one architecture", world).endswith(str(world.top.resolve()))


def test_a_command_names_a_folder_whatever_it_is_called(tmp_path):
    said = ptx_store.rewrite(tmp_path / "of mine" / "sm_100")
    assert said.endswith(f"prebuild '{tmp_path / 'of mine'}' --capability 10.0")


@pytest.mark.parametrize("cc", [(7, 5), (8, 6), (8, 9), (10, 0)])
def test_a_folder_for_other_devices(world, cc):
    """PTX for sm_80 would run on 8.6, but who asks for the kernels of a device gets those or none."""
    said = refused(
        rf"which holds sm_80, sm_90, expected {ptx_store.architecture(cc)}, what the device is", world, cc=cc
    )
    assert said.endswith(f"python -m benchmarks.gpu.prebuild {world.top} --capability {cc[0]}.{cc[1]}")


def test_a_folder_that_was_renamed(world):
    (world.top / "sm_90").rename(world.top / "sm_100")
    refused("sm_100 was made for sm_90, expected sm_100", world, cc=(10, 0))


def test_a_folder_of_other_kernels(world, monkeypatch):
    now = ptx_store.sources(DOUBLE)
    before = json.loads((world.top / "sm_90" / "manifest.json").read_text())["sources"]
    assert before == now
    monkeypatch.setattr(ptx_store, "sources", lambda kernel: now | {"tests.ptx": "0123456789abcdef"})
    said = refused(r"sm_90 was made of tests\.ptx \w+, expected 0123456789abcdef: the kernels have changed", world)
    assert now["tests.ptx"] in said
    monkeypatch.setattr(ptx_store, "sources", lambda kernel: now | {"elsewhere": "0123456789abcdef"})
    refused("made of elsewhere None, expected 0123456789abcdef", world)


def test_a_change_of_a_source_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    before = ptx_store.digest(tmp_path)
    ptx_store.digest.cache_clear()
    (tmp_path / "a.py").write_text("x = 2\n")
    assert ptx_store.digest(tmp_path) != before
    ptx_store.digest.cache_clear()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"architecture": 90, "sources": {}, "versions": {}, "kernels": {}}', '"text"']
)
def test_a_damaged_manifest(world, text):
    (world.top / "sm_90" / "manifest.json").write_text(text)
    refused(r"manifest\.json is no manifest .*write it anew with python -m benchmarks\.gpu\.prebuild", world)


def test_a_manifest_that_is_nested_too_deep(world):
    (world.top / "sm_90" / "manifest.json").write_text("[" * 200_000)
    refused(r"manifest\.json is no manifest \(RecursionError", world)


def test_a_name_that_no_folder_can_have(world, monkeypatch):
    monkeypatch.setenv("LATTICE_PTX", "a" * 5000)
    refused("LATTICE_PTX is a+, which cannot be looked into", world)


def test_a_folder_without_a_manifest(world):
    (world.top / "sm_90" / "manifest.json").unlink()
    refused(r"manifest\.json is no manifest \(FileNotFoundError", world)


def test_a_file_that_was_moved(world):
    """From the other folder, and from another kernel."""
    path, other = file_of(world), file_of(world, "sm_80")
    path.write_text(other.read_text())
    refused(r"holds tests\.ptx\.test_folder\.double\(int64, int64\) for sm_80 of .*, expected .* for sm_90 of", world)
    folder = ptx_store.write(world.top, (9, 0), [(k, TYPES, PTX.format("sm_90")) for k in (DOUBLE, HALVE)], VERSIONS)
    names = {
        json.loads((folder / "manifest.json").read_text())["kernels"][path.name]: path for path in folder.glob("*.ptx")
    }
    one, two = (names[f"tests.ptx.test_folder.{name}(int64, int64)"] for name in ("double", "halve"))
    one.write_text(two.read_text())
    refused(r"holds tests\.ptx\.test_folder\.halve.*expected tests\.ptx\.test_folder\.double", world)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "holds nothing, expected"),
        ("// {}\n", "holds no PTX, expected PTX for sm_90"),
        ("// {}\n.version 9.0\n.target sm_80\n", "holds PTX for sm_80, expected PTX for sm_90"),
    ],
)
def test_a_file_without_its_ptx(world, text, said):
    file_of(world).write_text(text.format(ptx_store.described(DOUBLE, TYPES, (9, 0))))
    refused(said, world)


def test_a_file_that_is_gone_or_no_text(world):
    path = file_of(world)
    path.write_bytes(b"\xff\xfe\x00")
    refused("which manifest.json lists, cannot be read", world)
    path.unlink()
    refused("which manifest.json lists, cannot be read", world)


def test_a_text_that_was_changed(world):
    path = file_of(world)
    path.write_text(path.read_text().replace("ret;", "trap; ret;"))
    refused(r"\.ptx holds a text of digest [0-9a-f]{64}, expected [0-9a-f]{64} as manifest\.json says", world)


def test_sources_that_are_not_there_are_those_of_no_folder(world, monkeypatch):
    monkeypatch.setattr(ptx_store, "digest", lambda folder: ptx_store.NO_SOURCES)
    ptx_store.write(world.top, (9, 0), [(DOUBLE, TYPES, PTX.format("sm_90"))], VERSIONS)
    refused("expected no sources", world)


def test_a_kernel_is_of_the_sources_that_were_imported(tmp_path, monkeypatch):
    """Not of those that lie there at its first launch."""
    path = tmp_path / "imported_once.py"
    path.write_text("from lattice.kernels.launch import cuda_kernel\n@cuda_kernel\ndef nothing():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    kernel = importlib.import_module("imported_once").nothing
    path.write_text(path.read_text() + "# changed\n")
    told = ptx_store.sources(kernel)[""]
    ptx_store.digest.cache_clear()
    assert told != ptx_store.digest(tmp_path)


def test_another_calling_convention(world, monkeypatch):
    monkeypatch.setattr(ptx, "flattened", lambda arguments: [0, 0, 0])
    said = refused("takes 2 parameters, expected 3: it was compiled by another release of numba-cuda", world)
    assert said.startswith(str(file_of(world)))


def test_what_the_driver_refuses_is_named(world, monkeypatch):
    def refuse(text):
        raise RuntimeError("the driver refuses PTX of version 9.0")

    monkeypatch.setattr(ptx, "load", refuse)
    assert str(file_of(world)) in refused("the driver refuses", world)


def test_a_folder_is_written_anew(world):
    folder = ptx_store.write(world.top, (9, 0), [(HALVE, TYPES, PTX.format("sm_90"))], VERSIONS)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [path.name for path in folder.glob("*.ptx")] == list(manifest["kernels"])
    assert list(manifest["kernels"].values()) == ["tests.ptx.test_folder.halve(int64, int64)"]
    assert manifest["versions"] == VERSIONS and manifest["architecture"] == "sm_90"


def test_a_folder_that_was_begun_is_none(world):
    def interrupted():
        yield DOUBLE, TYPES, PTX.format("sm_90")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ptx_store.write(world.top, (9, 0), interrupted(), VERSIONS)
    refused(r"is no manifest", world)
