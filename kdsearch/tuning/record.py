"""The record: the Optuna study as a person, optuna-dashboard and `kdsearch status` see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from kdsearch.tuning.journal import StudyJournal, seconds_driven
from kdsearch.tuning.mirror import Mirror, check_new

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"

END_NOTES = frozenset({"seconds", "images", "epochs", "gpus", "error", "failures", "losses"})
"""Names under which the end of a trial, and what went wrong before it, is noted."""

# Optuna would announce every study it makes on standard error.
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Record:
    """One study in `study.journal`, mirrored into a database where one is named.

    Exactly one trial of the study per trial of the search, under the same number: RUNNING; PRUNED with every
    intermediate value; COMPLETE only at the full budget; FAIL for crashes alone. The journal is the truth: a database
    follows it, and one that says otherwise when a run goes on is written anew.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        mode: str,
        distributions: Mapping[str, BaseDistribution],
        url: str | None = None,
        resume: bool = False,
        announce: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        if url is not None and not resume:
            check_new(url, name)
        self.distributions = distributions
        self.seconds_before = seconds_driven(folder / JOURNAL) if resume else 0.0
        """How long earlier drivers drove the run."""
        self._journal = StudyJournal(folder / JOURNAL)
        self._storage = JournalStorage(self._journal)
        direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
        try:
            self._study = self._storage.get_study_id_from_name(name)
        except KeyError:  # a new run, or one that was ended before it had a study
            self._study = self._storage.create_new_study([direction], name)
        self.study = optuna.load_study(study_name=name, storage=self._storage, sampler=optuna.samplers.RandomSampler(0))
        self._mirror = Mirror(folder / JOURNAL, name, direction, url, announce) if url is not None else None

    def trials(self) -> list[FrozenTrial]:
        """The trials that the record holds, in order."""
        return self._storage.get_all_trials(self._study, deepcopy=False)

    def begin(self, params: dict[str, Any], attributes: dict[str, Any]) -> int:
        """A new running trial; its id."""
        chosen = {name: self.distributions[name] for name in params}
        trial = create_trial(state=TrialState.RUNNING, params=params, distributions=chosen, user_attrs=attributes)
        return self._storage.create_new_trial(self._study, trial)

    def value(self, trial_id: int, epoch: int, value: float) -> None:
        """An intermediate value."""
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        if self._mirror is not None:
            self._mirror.flush()

    def note(self, trial_id: int, **attributes: Any) -> None:
        """Further facts about a running trial."""
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, value)

    def end(self, trial_id: int, state: TrialState, value: float | None, notes: dict[str, Any]) -> None:
        """The end of a trial."""
        self.note(trial_id, **notes)
        self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    def describe(self, **attributes: Any) -> None:
        """Facts about the whole study."""
        for key, value in attributes.items():
            self._storage.set_study_user_attr(self._study, key, value)

    def close(self) -> None:
        try:
            self._journal.close()
        finally:
            if self._mirror is not None:
                self._mirror.close()
