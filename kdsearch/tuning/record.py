"""The record: the Optuna study as a person, optuna-dashboard and `kdsearch status` see it."""

from __future__ import annotations

import contextlib
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from kdsearch.errors import UserError
from kdsearch.tuning.journal import StudyJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"

END_NOTES = frozenset({"seconds", "epochs", "gpus", "error", "failures", "losses"})
"""Names under which the end of a trial, and what went wrong before it, is noted."""

# Optuna would announce every study it makes on standard error.
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Record:
    """One study in `study.journal`, mirrored into a database where one is named.

    Exactly one trial of the study per trial of the search, under the same number: RUNNING; PRUNED with every
    intermediate value; COMPLETE only at the full budget; FAIL for crashes alone. The journal is the truth: it is
    written first, and a database that a crash left behind it is brought up to it by the resume. A trial that is
    reopened in the journal keeps its first end in the database, where an end is final.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        mode: str,
        distributions: Mapping[str, BaseDistribution],
        url: str | None = None,
        resume: bool = False,
    ) -> None:
        self.distributions = distributions
        self._journal = StudyJournal(folder / JOURNAL)
        self._storages: list[BaseStorage] = [JournalStorage(self._journal)]
        if url is not None:
            self._storages.append(database(url))
        direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
        self._studies = [_study(storage, name, direction, resume) for storage in self._storages]
        if resume:
            for mirror, study in zip(self._storages[1:], self._studies[1:], strict=True):
                _catch_up(self._storages[0], self._studies[0], mirror, study)
        self.study = optuna.load_study(
            study_name=name, storage=self._storages[0], sampler=optuna.samplers.RandomSampler(0)
        )

    def trials(self) -> list[tuple[FrozenTrial, tuple[int, ...]]]:
        """The trials that the record holds, in order, with their id in each storage."""
        frozen = [
            storage.get_all_trials(study, deepcopy=False)
            for storage, study in zip(self._storages, self._studies, strict=True)
        ]
        return [(same[0], tuple(trial._trial_id for trial in same)) for same in zip(*frozen, strict=True)]

    def begin(self, params: dict[str, Any], attributes: dict[str, Any]) -> tuple[int, ...]:
        """A new running trial; its id in each storage."""
        chosen = {name: self.distributions[name] for name in params}
        trial = create_trial(state=TrialState.RUNNING, params=params, distributions=chosen, user_attrs=attributes)
        return tuple(
            storage.create_new_trial(study, trial) for storage, study in zip(self._storages, self._studies, strict=True)
        )

    def value(self, ids: tuple[int, ...], epoch: int, value: float) -> None:
        """An intermediate value."""
        self._each(ids, lambda storage, trial_id: storage.set_trial_intermediate_value(trial_id, epoch, value))

    def note(self, ids: tuple[int, ...], **attributes: Any) -> None:
        """Further facts about a running trial."""

        def write(storage: BaseStorage, trial_id: int) -> None:
            for key, value in attributes.items():
                storage.set_trial_user_attr(trial_id, key, value)

        self._each(ids, write)

    def end(self, ids: tuple[int, ...], state: TrialState, value: float | None, notes: dict[str, Any]) -> None:
        """The end of a trial."""
        self.note(ids, **notes)
        values = None if value is None else [value]
        self._each(ids, lambda storage, trial_id: storage.set_trial_state_values(trial_id, state, values))

    def _each(self, ids: tuple[int, ...], write: Callable[[BaseStorage, int], object]) -> None:
        """Write to the trial in each storage; a database whose trial has ended for good is left as it is."""
        write(self._storages[0], ids[0])
        for mirror, trial_id in zip(self._storages[1:], ids[1:], strict=True):
            with contextlib.suppress(UpdateFinishedTrialError):
                write(mirror, trial_id)

    def describe(self, **attributes: Any) -> None:
        """Facts about the whole study."""
        for storage, study in zip(self._storages, self._studies, strict=True):
            for key, value in attributes.items():
                storage.set_study_user_attr(study, key, value)

    def close(self) -> None:
        self._journal.close()


def _catch_up(source: BaseStorage, study: int, mirror: BaseStorage, mirrored: int) -> None:
    """Tell a database what it missed: it is written after the journal, so a crash leaves it behind."""
    for key, value in source.get_study_user_attrs(study).items():
        mirror.set_study_user_attr(mirrored, key, value)
    theirs = mirror.get_all_trials(mirrored, deepcopy=False)
    for trial, same in zip_longest(source.get_all_trials(study, deepcopy=False), theirs):
        if same is None:
            mirror.create_new_trial(mirrored, trial)
            continue
        if trial is None or same.state.is_finished():
            continue
        for key, value in trial.user_attrs.items():
            mirror.set_trial_user_attr(same._trial_id, key, value)
        for epoch, value in trial.intermediate_values.items():
            mirror.set_trial_intermediate_value(same._trial_id, epoch, value)
        if trial.state.is_finished():
            mirror.set_trial_state_values(same._trial_id, trial.state, trial.values)


def database(url: str) -> BaseStorage:
    """Optuna's storage of a database URL. Raises UserError when it cannot be opened."""
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # whatever the driver of that database raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"study {url!r} cannot be opened: {reason}") from None


def _study(storage: BaseStorage, name: str, direction: StudyDirection, resume: bool) -> int:
    """The id of the study: a new one; or, of a run that goes on, the one it has (if it came to have one)."""
    try:
        return storage.create_new_study([direction], name)
    except optuna.exceptions.DuplicatedStudyError:
        if resume:
            return storage.get_study_id_from_name(name)
        raise UserError(f"the database already holds a study {name!r}; give the run another --name") from None
