"""Whatever stands in chain.yaml, it is a chain or a sentence, and nothing of it is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from kdsearch.chain import Chain
from kdsearch.errors import UserError
from tests.experiment.test_experiment_hostile import assert_one_sentence, mutated, noisy

WRITTEN: dict[str, Any] = {
    "seed": 3,
    "data": {"name": "digits", "label_fraction": 0.5},
    "training": {"epochs": 9, "batch_size": 32},
    "search": {"trials": 6, "grace_period": 3},
    "resources": {"max_concurrent": 1},
    "generations": [
        {"student": "resnet14", "method": "ce", "training": {"epochs": 12}},
        {"student": "resnet8", "space": {"alpha": {"low": 0.1, "high": 0.9}}, "hyperparameters": {"temperature": 3}},
        {"student": {"name": "resnet8", "arguments": {"width": 0.5}}, "search": {"trials": 8}},
    ],
}
SOURCES = [yaml.safe_dump(WRITTEN), Chain(name="chain", **WRITTEN).to_yaml()]


CHAIN, SENTENCE = "a chain", "a sentence"


def outcome(content: bytes, folder: Path) -> str:
    """What becomes of a file: a chain, which is then whole, or one sentence. Raises AssertionError for others."""
    path = folder / "chain.yaml"
    path.write_bytes(content)
    try:
        chain = Chain.load(path)
    except UserError as error:
        assert_one_sentence(str(error))
        return SENTENCE
    finally:
        assert not Path("pwned").exists()
    path.write_text(chain.to_yaml(), encoding="utf-8")
    assert Chain.load(path).resolved() == chain.resolved()
    return CHAIN


def test_a_legal_file_is_a_chain_and_a_misspelt_one_a_sentence(tmp_path: Path) -> None:
    for source in SOURCES:
        assert outcome(source.encode(), tmp_path) == CHAIN
        assert outcome(source.replace("generations:", "generation:", 1).encode(), tmp_path) == SENTENCE


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(SOURCES) | noisy(SOURCES))
def test_a_mutated_chain_is_a_chain_or_a_sentence(content: bytes, tmp_path: Path) -> None:
    assert outcome(content, tmp_path) in (CHAIN, SENTENCE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(SOURCES) | noisy(SOURCES))
def test_a_thousand_files_are_chains_or_sentences(content: bytes, tmp_path: Path) -> None:
    assert outcome(content, tmp_path) in (CHAIN, SENTENCE)
