"""Every block of the README that can be run is run, from top to bottom, in one folder, as a reader would.

A ```bash or ```python block is run as a script; of a ```console block the lines behind `$ ` are. Blocks in other
languages are only read. The line before a block may say more, in a comment that a reader of the page does not
see, with `;` between two of these:

    <!-- test: file NAME -->          the block (of any language) is not run but saved as NAME, for those after it
    <!-- test: with NAME ... -->      brings files that the reader has already, from the folder readme_files beside this
    <!-- test: add FLAGS -->          every `kdsearch search` gets these flags too: `--trials 2`, to take less time
    <!-- test: only read, REASON -->  for what needs a GPU, a cluster or a person: the options of kdsearch commands are
                                      checked, and of others that the program is there

`launch/local.sh` is the installed kdsearch here: that script has tests of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import of_commands

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FILES = Path(__file__).parent / "readme_files"

RUN = ("bash", "console", "python")
READ = ("text", "yaml", "json", "toml")
DIRECTIVES = ("file", "with", "add", "only read,")
BLOCK = re.compile(r"(?:^<!-- test: (?P<directive>.*) -->\n)?^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)^```$", re.M)

# Functions of these names stand before the commands: so pipes, variables and comments in a block stay as they are.
PRELUDE = """
set -euo pipefail
kdsearch() { case "${1-}" in COMMAND) set -- "$@" FLAGS ;; esac; command kdsearch "$@"; }
launch/local.sh() { if [ $# = 0 ]; then kdsearch search ips; else kdsearch "$@"; fi; }
"""


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str
    directive: str = ""

    def value(self, name: str) -> str | None:
        """What follows the directive of this name, if the block has it."""
        found = re.search(rf"(?:^|; *){name} +([^;]*)", self.directive)
        return found[1].strip() if found else None

    @property
    def commands(self) -> str:
        """The block as a shell script."""
        if self.language != "console":
            return self.text
        return "\n".join(line[2:] for line in self.text.splitlines() if line[:2] in ("$ ", "> ")) + "\n"

    @property
    def is_run(self) -> bool:
        return self.language in RUN or self.value("file") is not None


def blocks(text: str) -> list[Block]:
    return [
        Block(
            text[: found.start("language")].count("\n") + 1, found["language"], found["text"], found["directive"] or ""
        )
        for found in BLOCK.finditer(text)
    ]


def prelude(command: str, flags: str) -> str:
    """Shell lines that add the flags to every use of that command of kdsearch; `*`: of any."""
    return PRELUDE.replace("COMMAND", command).replace("FLAGS", flags)


def assert_succeeds(script: str, folder: Path, interpreter: tuple[str, ...] = ("bash", "-c")) -> None:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = of_commands() | {"PATH": programs}
    result = subprocess.run(
        [*interpreter, script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"


def assert_is_plausible(block: Block, folder: Path) -> None:
    if block.language == "python":
        compile(block.text, "README.md", "exec")
        return
    for command in block.commands.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if not words:
            continue
        if words[0] in ("kdsearch", "launch/local.sh"):
            assert_succeeds(prelude("*", "--help") + command, folder)
        else:
            assert (ROOT / words[0]).exists() or shutil.which(words[0]), f"{words[0]} is not there: {command}"


def assert_works(block: Block, folder: Path) -> None:
    """Do with a block what its language and its directive ask for."""
    for name in (block.value("with") or "").split():
        source = FILES / name
        if source.is_dir():
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
        else:
            shutil.copy(source, folder / name)
    if name := block.value("file"):
        (folder / name).write_text(block.text)
    elif block.value("only read,"):
        assert_is_plausible(block, folder)
    elif block.language == "python":
        assert_succeeds(block.text, folder, (sys.executable, "-c"))
    else:
        assert_succeeds(prelude("search", block.value("add") or "") + block.commands, folder)


BLOCKS = blocks(README.read_text())


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder a reader works in: the blocks share it."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_run], ids=lambda block: f"line {block.line}")
def test_the_block_does_what_it_says(block: Block, reader: Path) -> None:
    assert_works(block, reader)


def test_no_block_escapes() -> None:
    text = README.read_text()
    assert 2 * len(BLOCKS) == len(re.findall(r"^\s*(?:```|~~~)", text, re.M)), "a block is not closed, or indented"
    assert {block.language for block in BLOCKS} <= {*RUN, *READ}
    directives = re.findall(r"<!-- *test\b.*", text)
    assert len(directives) == sum(bool(block.directive) for block in BLOCKS), f"not before a block: {directives}"
    assert all(any(block.value(name) for name in DIRECTIVES) for block in BLOCKS if block.directive)


def test_what_the_page_links_to_is_in_the_repository() -> None:
    links = re.findall(r"\]\(([^):#]+)\)", README.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


EXAMPLE = """
```bash
echo one > first   # a comment
cat first | tr a-z A-Z > second
```

<!-- test: file my_net.py -->
```python
WIDTH = 8
```

```python
import my_net
open("third", "w").write(str(my_net.WIDTH))
```

```console
$ printf 'fo' > fourth
printed, but no command
$ printf \\
> 'ur' >> fourth
```

```yaml
only: read
```
"""


def test_blocks_share_a_folder_and_run_in_the_order_of_the_page(tmp_path: Path) -> None:
    found = blocks(EXAMPLE)
    assert [(block.line, block.language, block.is_run) for block in found] == [
        (2, "bash", True),
        (8, "python", True),
        (12, "python", True),
        (17, "console", True),
        (24, "yaml", False),
    ]
    for block in found[:-1]:
        assert_works(block, tmp_path)
    written = {path.name: path.read_text().strip() for path in tmp_path.iterdir() if path.is_file()}
    assert written == {"first": "one", "second": "ONE", "my_net.py": "WIDTH = 8", "third": "8", "fourth": "four"}


@pytest.mark.parametrize("script", ["false", "false | cat", "no-such-program", "echo $NO_SUCH_VARIABLE"])
def test_a_block_that_fails_is_seen(script: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert_works(Block(1, "bash", script), tmp_path)


@pytest.fixture
def echoing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which kdsearch is a program that writes its arguments into `called`."""
    program = tmp_path / "bin" / "kdsearch"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >>called\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    return tmp_path


def test_flags_are_added_to_every_search_alone(echoing: Path) -> None:
    text = "kdsearch search ips  # all of it\nlaunch/local.sh\nlaunch/local.sh ls\necho kdsearch | cat\n"
    assert_works(Block(1, "bash", text, "add --trials 2"), echoing)
    assert (echoing / "called").read_text().splitlines() == [
        "search ips --trials 2",
        "search ips --trials 2",
        "ls",
    ]


def test_files_that_the_reader_has_already_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FILES", tmp_path / "has")
    (tmp_path / "has" / "photos").mkdir(parents=True)
    (tmp_path / "has" / "photos" / "1").touch()
    (tmp_path / "has" / "a.yaml").touch()
    assert_works(Block(1, "bash", "ls a.yaml photos/1 | cat", "with photos a.yaml; add --trials 2"), tmp_path)
    assert (tmp_path / "photos" / "1").exists()


def test_what_cannot_be_run_here_has_its_options_checked(echoing: Path) -> None:
    text = "kdsearch search kd \\\n  --gpus-per-trial 0.25\n\nbash -c 'touch ran'  # not ours\nlaunch/test.sh -k ips\n"
    assert_works(Block(1, "bash", text, "only read, needs a GPU"), echoing)
    assert (echoing / "called").read_text().splitlines() == ["search kd --gpus-per-trial 0.25 --help"]
    assert not (echoing / "ran").exists()
    with pytest.raises(AssertionError, match="no-such-program is not there"):
        assert_works(Block(1, "bash", "no-such-program --flag", "only read, needs a GPU"), echoing)
