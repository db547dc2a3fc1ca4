"""The record: the Optuna study as a person, optuna-dashboard and `kdsearch status` see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from kdsearch.errors import UserError
from kdsearch.tuning.journal import StudyJournal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"

# Optuna would announce every study it makes on standard error.
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Record:
    """One study in `study.journal`, mirrored into a database where one is named.

    Exactly one trial of the study per trial of the search, under the same number: RUNNING; PRUNED with every
    intermediate value; COMPLETE only at the full budget; FAIL for crashes alone.
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
        for storage, trial_id in zip(self._storages, ids, strict=True):
            storage.set_trial_intermediate_value(trial_id, epoch, value)

    def note(self, ids: tuple[int, ...], **attributes: Any) -> None:
        """Further facts about a running trial."""
        for storage, trial_id in zip(self._storages, ids, strict=True):
            for key, value in attributes.items():
                storage.set_trial_user_attr(trial_id, key, value)

    def end(self, ids: tuple[int, ...], state: TrialState, value: float | None, notes: dict[str, Any]) -> None:
        """The end of a trial."""
        self.note(ids, **notes)
        for storage, trial_id in zip(self._storages, ids, strict=True):
            storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    def describe(self, **attributes: Any) -> None:
        """Facts about the whole study."""
        for storage, study in zip(self._storages, self._studies, strict=True):
            for key, value in attributes.items():
                storage.set_study_user_attr(study, key, value)

    def close(self) -> None:
        self._journal.close()


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
