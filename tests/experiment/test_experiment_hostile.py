"""Whatever stands in a file, it is an experiment or a sentence, and nothing of it is executed."""

from __future__ import annotations

import base64
import copy
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdsearch.errors import RunError, UserError
from kdsearch.experiment import Experiment, read_settings
from kdsearch.files import parse_yaml, read_yaml

FOLDER = Path(__file__).parents[2] / "search_spaces"
SHIPPED = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yaml"))}
# As a person writes them, and with every key there is, as a run's folder holds them.
WRITTEN = list(SHIPPED.values())
RESOLVED = [Experiment.load(name).to_yaml() for name in SHIPPED]
SOURCES = [*WRITTEN, *RESOLVED]

# Written in C where PyYAML was built with it: writing took more time than all else.
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
parsed = functools.cache(yaml.safe_load)

# What pydantic, Python or YAML would say instead of us.
FOREIGN = re.compile(r"input should be|traceback|pydantic|object at 0x|<class|validation error|codec", re.IGNORECASE)


def assert_one_sentence(text: str) -> None:
    assert text.strip()
    assert text.isprintable(), text
    assert len(text) < 3000, text
    assert not FOREIGN.search(text), text


EXPERIMENT, SENTENCE = "an experiment", "a sentence"


def outcome(content: bytes, folder: Path) -> str:
    """What becomes of a file: an experiment, which is then whole, or one sentence. Raises AssertionError for others."""
    path = folder / "e.yaml"
    path.write_bytes(content)
    try:
        experiment = Experiment.load(str(path))
    except UserError as error:
        assert_one_sentence(str(error))
        return SENTENCE
    finally:
        assert not Path("pwned").exists()
    path.write_text(experiment.to_yaml(), encoding="utf-8")
    again = Experiment.load(str(path))
    assert again == experiment
    assert again.resolve(again.control()) == experiment.resolve(experiment.control())
    return EXPERIMENT


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key and list entry."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in [(*path, key), *places(inner, (*path, key))]]


NUMBERS = (
    st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.sampled_from([0, 1, -1, 2**31, 2**63, 1e308])
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=12) | st.dates() | st.binary(max_size=4)
WORDS = st.sampled_from(
    ["low", "high", "choices", "step", "log", "or_zero", "alpha", "grid", "sgd", "name", "kd", "1e-3"]
)
KEYS = WORDS | st.text(max_size=8) | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


@st.composite
def mutated(draw: st.DrawFn, sources: Sequence[str] = SOURCES) -> bytes:
    """A legal file with a few keys renamed, values replaced, parts deleted, moved or nested."""
    content = copy.deepcopy(parsed(draw(st.sampled_from(sources))))
    for _ in range(draw(st.integers(1, 3))):
        paths = places(content)
        if not paths:
            break
        *way, last = draw(st.sampled_from(paths))
        owner = content
        for key in way:
            owner = owner[key]
        change = draw(st.sampled_from(["replace", "delete", "rename", "nest", "move", "scale"]))
        if change == "replace":
            owner[last] = draw(VALUES)
        elif change == "delete":
            del owner[last]
        elif change == "nest":
            owner[last] = draw(st.sampled_from([{"name": owner[last]}, {last: owner[last]}, [owner[last]]]))
        elif change == "scale" and isinstance(owner[last], int | float):
            owner[last] = owner[last] * draw(st.sampled_from([-1, 0, 0.5, 2, 1000]))
        elif change == "rename" and isinstance(owner, dict):
            owner[draw(misspelt(str(last)) | KEYS)] = owner.pop(last)
        elif change == "move":
            content[str(last)] = owner[last]
    text: str = yaml.dump(content, Dumper=DUMPER, allow_unicode=draw(st.booleans()))
    return text.encode(errors="surrogatepass")


def misspelt(word: str) -> st.SearchStrategy[str]:
    """The word with one character left out or another one put in."""
    place = st.integers(0, len(word))
    return st.builds(
        lambda i, c: word[:i] + c + word[i + len(c) - 1 + 1 :], place, st.sampled_from(["", "x", "é", "_"])
    )


TEXTS = [
    *("&a ", "*a", "<<: *a", "!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!!bool x"),
    *("!!int ''", "!!set {a, b}", "!!binary x", "!!timestamp x", "!own ", "---\n", "...\n", "%YAML 9.9\n", "\t", "\0"),
    *(
        "[",
        "]",
        "{",
        "}",
        ": ",
        "? ",
        "- ",
        "|\n",
        ">-\n",
        "'",
        '"',
        "#",
        "~",
        "\n",
        "\r",
        "é",
        "\u2028",
        "\ufeff",
        "😀",
    ),
    *("0x" + "f" * 5000, "9" * 5000, ".inf", ".nan", "1e999", "2024-13-45", '"\\ud800"', '"\\0"'),
]
FRAGMENTS = [*(text.encode() for text in TEXTS), b"\xff\xfe", b"\xc3", "😀".encode("utf-16")]


@st.composite
def noisy(draw: st.DrawFn, sources: Sequence[str] = SOURCES) -> bytes:
    """A legal file with bytes deleted, put in, or repeated."""
    content = bytearray(draw(st.sampled_from(sources)).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.sampled_from([0, 0, 1, 4, 40]))
        content[start:end] = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=6)) * draw(
            st.sampled_from([1, 1, 1, 50])
        )
    return bytes(content)


def test_a_legal_file_is_an_experiment_and_a_misspelt_one_a_sentence(tmp_path: Path) -> None:
    for source in SOURCES:
        assert outcome(source.encode(), tmp_path) == EXPERIMENT
        assert outcome(source.replace("method:", "methud:", 1).encode(), tmp_path) == SENTENCE


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated())
def test_a_mutated_experiment_is_an_experiment_or_a_sentence(content: bytes, tmp_path: Path) -> None:
    assert outcome(content, tmp_path) in (EXPERIMENT, SENTENCE)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=noisy())
def test_a_damaged_file_is_an_experiment_or_a_sentence(content: bytes, tmp_path: Path) -> None:
    assert outcome(content, tmp_path) in (EXPERIMENT, SENTENCE)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated() | noisy())
def test_ten_thousand_files_are_experiments_or_sentences(content: bytes, tmp_path: Path) -> None:
    assert outcome(content, tmp_path) in (EXPERIMENT, SENTENCE)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    key=st.sampled_from([".".join(map(str, place)) for place in places(yaml.safe_load(RESOLVED[0]))]) | st.text(),
    value=VALUES,
)
def test_any_override_is_an_experiment_or_a_sentence(key: str, value: Any) -> None:
    try:
        experiment = Experiment.load("kd", {key: value})
    except UserError as error:
        assert_one_sentence(str(error))
    else:
        assert experiment.revalidated() == experiment


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: !!python/object/apply:os.system ['touch pwned']", r"could not determine a constructor for the tag '.*"),
        ("!!python/object/new:os.system ['touch pwned']", r"could not determine a constructor for the tag '.*"),
        ("teacher: &t resnet20\nstudent: *t", r"the alias \*t at line 2 is not followed; write the value out"),
        ("a: &a {b: *a}", r"the alias \*a at line 1 is not followed; write the value out"),
        ("method: kd\nmethod: ce", r"'method' stands twice in the mapping at line 1"),
        ("method: kd\nspace:\n  alpha: 1\n  alpha: 0", r"'alpha' stands twice in the mapping at line 3"),
        ("method: [", r"did not find expected node content at line \d"),
        ("method: kd\n\tteacher: x", r"found a tab character that violates indentation at line 2"),
        ("method: kd\n---\nmethod: ce", r"but found another document at line 2"),
        ("{[1]: 2}", r"found unhashable key at line 1"),
        ("seed: 2024-13-45", r"month must be in 1\.\.12"),
        ("seed: !!bool x", r"a value does not fit its tag"),
        ("seed: " + "9" * 5000, r"Exceeds the limit \(4300 digits\) for integer string conversion.*"),
        ("[" * 1_000_000, r"it nests deeper than 100 levels"),
        ("- " * 1_000_000, r"it nests deeper than 100 levels"),
        ("{a: " * 1_000_000, r"it nests deeper than 100 levels"),
    ],
)  # fmt: skip
def test_what_is_no_plain_yaml_is_said_with_its_line(content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(content)
    for read in (Experiment.load, read_settings):
        with pytest.raises(UserError, match=rf"^{path} is not YAML: {sentence}$") as error:
            read(str(path))
        assert_one_sentence(str(error.value))
    assert not Path("pwned").exists()


def bomb(levels: int, merge: bool) -> str:
    """YAML of a few hundred bytes that unfolds into 10**levels values."""
    first = "a0: &a0 {x: 1}\n"
    inner = "{{<<: [{}]}}" if merge else "[{}]"
    return first + "".join(
        f"a{level}: &a{level} {inner.format(', '.join([f'*a{level - 1}'] * 10))}\n" for level in range(1, levels)
    )


@pytest.mark.parametrize("merge", [False, True])
def test_a_small_file_does_not_unfold_into_a_large_one(merge: bool, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(bomb(40, merge))
    with pytest.raises(UserError, match=r"the alias \*a0 at line 2 is not followed"):
        Experiment.load(str(tmp_path / "e.yaml"))


@pytest.mark.parametrize("key", ["method", "data", "student", "teacher", "name", "resources: {address"])
def test_nothing_is_hidden_in_binary_values(key: str, tmp_path: Path) -> None:
    hidden = base64.b64encode(b"ray://evil:10001" if "address" in key else b"pwned.py:Pwned").decode()
    closing = "}" if "{" in key else ""
    (tmp_path / "e.yaml").write_text(f"{key}: !!binary {hidden}{closing}\n")
    with pytest.raises(UserError, match=r"the binary value at line 1 is not taken; write it as text$"):
        Experiment.load(str(tmp_path / "e.yaml"))


@pytest.mark.parametrize("content", ["", "- 1", "1: 2", "text", "{1: 2, a: 3}", "~"])
def test_a_file_maps_names_to_values(content: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(content)
    with pytest.raises(UserError, match=r"e\.yaml must hold a mapping of names to values$"):
        Experiment.load(str(tmp_path / "e.yaml"))


def test_the_reader_raises_the_error_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.yaml cannot be read: No such file or directory$"):
        read_yaml(tmp_path / "none.yaml", RunError)
    with pytest.raises(RunError, match=r"cannot be read: Is a directory$"):
        read_yaml(tmp_path, RunError)
    with pytest.raises(UserError, match=r"cannot be read: No such file or directory$") as error:
        read_settings(tmp_path / "none.yaml")
    assert not isinstance(error.value, RunError)


def test_plain_values_are_read_as_yaml_says() -> None:
    text = "{a: 1, b: 1.5, c: yes, d: no, e: ~, f: 1e-3, g: 'x', h: [1, {i: 2}], anchored: &a 3}"
    assert parse_yaml(text) == {
        "a": 1, "b": 1.5, "c": True, "d": False, "e": None, "f": "1e-3", "g": "x", "h": [1, {"i": 2}], "anchored": 3
    }  # fmt: skip
    assert parse_yaml(text.encode()) == parse_yaml(text) == parse_yaml(text.encode("utf-16"))
