"""The database that mirrors a study: a thread follows the journal, which is the truth, and tells the database.

So the search never waits for a database, and one that is locked, gone or unreachable neither ends nor delays it.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from kdsearch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.storages import BaseStorage
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

PAUSE = 0.5
"""Seconds between two looks at the journal, at least."""
RETRY = 10.0
"""Seconds after which a database that could not be written is tried again."""
PATIENCE = 10.0
"""Seconds for which the end of a search waits for the database."""
BEGAN = "started"
"""The attribute by which a study in a database is known as that of this run, and not somebody else's of its name."""


class Mirror:
    """A study in a database that follows the one in a run's `study.journal`.

    Args:
        path: the journal, which holds the study already.
        name: of the study.
        direction: of the study.
        url: of the database.
        announce: told in a sentence, from `flush`, when the database is lost and when it is back.
    """

    def __init__(
        self, path: Path, name: str, direction: StudyDirection, url: str, announce: Callable[[str], None]
    ) -> None:
        self._path = path
        self._name = name
        self._direction = direction
        self._url = url
        self._announce = announce
        self._sentences: list[str] = []
        self._lost = False
        self._refused = False
        self._database: Copy | None = None
        self._source: BaseStorage | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        """Announce what happened; called from the search's own thread."""
        while self._sentences:
            self._announce(self._sentences.pop(0))

    def close(self) -> None:
        """Bring the database up to the journal a last time, as far as that can be done within `PATIENCE`."""
        self._stop.set()
        self._thread.join(PATIENCE)
        self.flush()
        if not self._refused and (self._lost or self._thread.is_alive()):
            self._announce(f"the database {shown(self._url)} is behind {self._path.name}; the next resume brings it up")

    def _follow(self) -> None:
        ends = False
        while not ends:
            ends = self._stop.wait(RETRY if self._lost else PAUSE)
            if not self._refused:
                self._bring_up()
        if self._database is not None:
            self._database.close()

    def _bring_up(self) -> None:
        try:
            if self._source is None:
                self._source = JournalStorage(JournalFileBackend(str(self._path)))
            if self._database is None:
                self._database = Copy(self._url, self._name, self._direction)
            self._database.follow(self._source, self._source.get_study_id_from_name(self._name))
        except OtherRun as error:
            self._refused = True
            self._sentences.append(str(error))
        except Exception as error:  # whatever the driver of that database raises
            if self._database is not None:
                self._database.close()
            self._database = None  # opened anew: it may be another file, or another server, by then
            if not self._lost:
                self._sentences.append(
                    f"the database {shown(self._url)} cannot be written ({reason_of(error)}): the search goes on, "
                    f"{self._path.name} holds all of it, and the database gets it when it is back"
                )
            self._lost = True
        else:
            if self._lost:
                self._sentences.append(f"the database {shown(self._url)} is back and holds the whole study")
            self._lost = False


class OtherRun(UserError):
    """The study of that name in the database is another run's."""


class Copy:
    """The study in the database, as far as this process knows it."""

    def __init__(self, url: str, name: str, direction: StudyDirection) -> None:
        self._url, self._name, self._direction = url, name, direction
        self._storage = optuna.storages.get_storage(url)
        try:
            self._study = self._storage.create_new_study([direction], name)
        except optuna.exceptions.DuplicatedStudyError:
            self._study = self._storage.get_study_id_from_name(name)
        self._attributes: dict[str, Any] = self._storage.get_study_user_attrs(self._study)
        self._trials: list[FrozenTrial] = self._storage.get_all_trials(self._study)
        self._checked = False

    def close(self) -> None:
        close_storage(self._storage)

    def follow(self, source: BaseStorage, study: int) -> None:
        """Tell the database what the source holds and it does not. Raises OtherRun, and what the database raises."""
        ours = source.get_study_user_attrs(study)
        if BEGAN not in ours:
            return  # the driver has not come to say so
        if (self._attributes or self._trials) and self._attributes.get(BEGAN) != ours[BEGAN]:
            raise OtherRun(
                f"the database {shown(self._url)} holds the study {self._name!r} of another run: "
                "this one is not mirrored there"
            )
        trials = source.get_all_trials(study, deepcopy=False)
        if not self._checked and not _leads_to(self._trials, trials):
            self._begin_anew()
        self._checked = True
        for key, value in sorted(ours.items(), key=lambda pair: pair[0] != BEGAN):  # what tells whose it is comes first
            if key not in self._attributes or self._attributes[key] != value:
                self._storage.set_study_user_attr(self._study, key, value)
                self._attributes[key] = value
        for number, trial in enumerate(trials):
            if number == len(self._trials):
                mirrored = copy.deepcopy(trial)
                mirrored._trial_id = self._storage.create_new_trial(self._study, trial)
                self._trials.append(mirrored)
            elif not self._trials[number].state.is_finished():
                self._tell(self._trials[number], trial)

    def _begin_anew(self) -> None:
        """What the database says of the run is not what became of it, and an end is final there."""
        self._storage.delete_study(self._study)
        self._study = self._storage.create_new_study([self._direction], self._name)
        self._attributes, self._trials = {}, []

    def _tell(self, mirrored: FrozenTrial, trial: FrozenTrial) -> None:
        number = mirrored._trial_id
        for key, value in trial.user_attrs.items():
            if key not in mirrored.user_attrs or mirrored.user_attrs[key] != value:
                self._storage.set_trial_user_attr(number, key, value)
                mirrored.set_user_attr(key, value)
        for epoch, value in trial.intermediate_values.items():
            if mirrored.intermediate_values.get(epoch) != value:
                self._storage.set_trial_intermediate_value(number, epoch, value)
                mirrored.intermediate_values[epoch] = value
        if trial.state.is_finished():
            self._storage.set_trial_state_values(number, trial.state, trial.values)
            mirrored.state = trial.state


def _leads_to(theirs: list[FrozenTrial], ours: list[FrozenTrial]) -> bool:
    """Whether telling what is new makes of these trials those."""
    return len(theirs) <= len(ours) and all(_becomes(a, b) for a, b in zip(theirs, ours, strict=False))


def _becomes(theirs: FrozenTrial, ours: FrozenTrial) -> bool:
    if theirs.params != ours.params or not theirs.user_attrs.keys() <= ours.user_attrs.keys():
        return False
    if not theirs.intermediate_values.keys() <= ours.intermediate_values.keys():
        return False
    same = (theirs.state, theirs.values, theirs.user_attrs, theirs.intermediate_values)
    return not theirs.state.is_finished() or same == (
        ours.state, ours.values, ours.user_attrs, ours.intermediate_values,
    )  # fmt: skip


def check_new(url: str, name: str) -> None:
    """Raise UserError when the database cannot be opened, or holds a study of that name."""
    storage = database(url)
    try:
        names = [study.study_name for study in storage.get_all_studies()]
    except Exception as error:
        raise UserError(f"study {shown(url)} cannot be opened: {reason_of(error)}") from None
    finally:
        close_storage(storage)
    if name in names:
        raise UserError(f"the database already holds a study {name!r}; give the run another --name")


def database(url: str) -> BaseStorage:
    """Optuna's storage of a database URL. Raises UserError when it cannot be opened."""
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # whatever the driver of that database raises
        raise UserError(f"study {shown(url)} cannot be opened: {reason_of(error)}") from None


def close_storage(storage: BaseStorage) -> None:
    """Let go of a database's connections."""
    with contextlib.suppress(Exception):
        storage.remove_session()
        engine = getattr(getattr(storage, "_backend", storage), "engine", None)
        if engine is not None:
            engine.dispose()


def shown(url: str) -> str:
    """A database's URL without its password."""
    scheme, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    return repr(f"{scheme}{separator}{login.partition(':')[0]}{at}{place}")


def reason_of(error: BaseException) -> str:
    """The first line of what a database's driver says, without what wraps it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
