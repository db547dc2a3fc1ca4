"""A search's best settings, trained again on fresh seeds: which of them is best, how good it is, how sure that is."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdsearch.errors import RunError, SearchFailed
from kdsearch.experiment import Experiment
from kdsearch.files import write_atomic
from kdsearch.results import Results, RunLock, search_facts
from kdsearch.results.confirm_log import TEST, Log, earlier
from kdsearch.results.confirm_state import note_asked
from kdsearch.results.confirmation import DOCUMENT, FOLDER, conclude, median_seed, plan, winner
from kdsearch.results.copies import where_driven
from kdsearch.results.documents import read_json, to_json
from kdsearch.results.export import METRICS
from kdsearch.results.links import refuse_links
from kdsearch.results.storage import is_chain
from kdsearch.tuning.confirm_student import Job, read_test, train
from kdsearch.tuning.folder import BEST, EXPERIMENT, naming_full_disks, tidy
from kdsearch.tuning.objective import FACTS
from kdsearch.tuning.uploading import uploading
from kdsearch.tuning.winner import bring_home
from kdsearch.tuning.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from kdsearch.results import Trial
    from kdsearch.results.confirm_log import Done
    from kdsearch.results.confirmation import Document, Plan

    View = Callable[[Results], AbstractContextManager["Watcher"]]

STUDENTS = "students"


class Watcher(Protocol):
    """Someone who follows a confirmation."""

    def announce(self, sentence: str) -> None: ...

    def stage(self, name: str, total: int, done: int) -> None:
        """A stage begins, `done` of whose `total` parts an earlier call has done."""
        ...

    def ended(self, done: Done) -> None: ...


class Quiet:
    """A watcher that shows nothing."""

    def announce(self, sentence: str) -> None: ...

    def stage(self, name: str, total: int, done: int) -> None: ...

    def ended(self, done: Done) -> None: ...


def quietly(results: Results) -> AbstractContextManager[Watcher]:
    """The view of a confirmation that shows nothing."""
    return contextlib.nullcontext(Quiet())


def confirm_as_asked(
    results: Results, experiment: Experiment, view: View, *, allow_code: bool = False, verbose: bool = False
) -> Results:
    """Confirm a search that has ended, where its experiment asks for it; the run as it then is.

    Ended by Ctrl-C, it returns what there is, as a search does; resuming the run goes on with it. Raises
    SearchFailed where no setting of the method was trained to the end, and what `confirm` raises.
    """
    wish = experiment.search.confirm
    if wish is None or results.state != "COMPLETE":
        return results
    try:
        plan(results, wish.top, wish.seeds)
    except RunError as error:
        raise SearchFailed(f"{error}: give a larger budget") from None
    with contextlib.suppress(KeyboardInterrupt), view(results) as watcher:
        confirm(results.folder, top=wish.top, seeds=wish.seeds, watcher=watcher, allow_code=allow_code, verbose=verbose)
    return Results(results.folder)


def confirm(
    folder: str | Path,
    *,
    top: int = 3,
    seeds: int = 5,
    watcher: Watcher | None = None,
    allow_code: bool = False,
    verbose: bool = False,
) -> Document:
    """Confirm the run in `folder`; the document that is then its confirm.json.

    What an earlier call has done, ended by whatever means, is not done again. The run's `best/` becomes the student of
    the winner's median seed; not in a chain, where the student that is there teaches the next generation.

    Args:
        folder: the run.
        top: how many of its best settings are trained again.
        seeds: fresh seeds that decide among them; as many others report.
        watcher: told what goes on.
        allow_code: run the code that the run names, and follow links out of it; else both are refused.
        verbose: let Ray speak.

    Raises:
        UserError: something cannot be; nothing was written.
        SearchFailed: a training failed, or too few of the winner's ended well.
        DiskFull: no room was left to write.
    """
    folder, watcher = Path(folder).resolve(), watcher or Quiet()
    if not allow_code:
        refuse_links(folder)
    results = Results(folder)
    found = plan(results, top, seeds)
    experiment = Experiment.load(str(folder / EXPERIMENT), allow_code=allow_code)
    remote, root, folder = where_driven(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder), naming_full_disks(folder, "confirm"), uploading(folder, remote, watcher.announce) as upload:
        if upload is not None:  # what was read above may be older
            results = Results(folder)
            found = plan(results, top, seeds)
        tidy(folder)
        log = Log(folder / FOLDER)
        with Workers(experiment, root, watcher.announce, verbose=verbose, remote=remote) as workers:
            return _Confirmation(results, found, log, workers, watcher).run()


@dataclass(frozen=True)
class _Confirmation:
    results: Results
    plan: Plan
    log: Log
    workers: Workers
    watcher: Watcher

    def run(self) -> Document:
        plan, log, results = self.plan, self.log, self.results
        self.watcher.announce(_size(plan))
        self._train("deciding", [self._job(trial, seed) for trial in plan.candidates for seed in plan.deciding])
        best = self._winner()
        settings = plan.settings(best).values()
        reporting = [self._job(trial, seed, keep=True) for trial in settings for seed in plan.reporting]
        self._train("reporting", reporting)
        self._check(best)
        self._read_test(reporting)
        median = self._job(best, median_seed(plan, best, log), keep=True)
        if not _is_kept(median):  # an earlier call had another winner
            self._train("again", [median], anew=True)
        for reading in earlier(_facts_of(results.folder), log):
            log.add(reading)
        document = conclude(results, plan, log)
        note_asked(results.folder, **plan.asked)
        write_atomic(results.folder / DOCUMENT, to_json(document).encode())
        if is_chain(results.folder.parent):
            self.watcher.announce("best/ stays as it is: its student teaches the next generation of the chain")
        else:
            self._bring_home(best, median, document)
        self._clear(best)
        return document

    def _winner(self) -> Trial:
        found = winner(self.plan, self.log)
        if found is None:
            raise SearchFailed("every training of the best settings diverged on the fresh seeds")
        return found

    def _check(self, best: Trial) -> None:
        """Before the test split is read: there is something to report."""
        seeds = self.plan.reporting
        diverged = sum(self.log.value(best.number, seed) is None for seed in seeds)
        if len(seeds) - diverged < 2:
            raise SearchFailed(
                f"trial {best.number} won and then diverged on {diverged} of {len(seeds)} fresh seeds: "
                "it cannot be recommended"
            )

    def _job(self, trial: Trial, seed: int, *, keep: bool = False) -> Job:
        folder = self.results.folder / FOLDER / STUDENTS / f"{trial.number:04d}-{seed}"
        return Job(trial.number, trial.hyperparameters, seed, folder, keep)

    def _train(self, stage: str, jobs: Sequence[Job], *, anew: bool = False) -> None:
        """Train what has not been trained."""
        missing = [job for job in jobs if anew or self._is_missing(job)]
        if jobs:
            self.watcher.stage(stage, len(jobs), len(jobs) - len(missing))
        if missing:
            self.workers.ready()  # what cannot be is refused before anything is written
            note_asked(self.results.folder, **self.plan.asked)
        for done in self.workers.each(train, missing):
            if self.log.trained(done.trial, done.seed) is None:
                self.log.add(done)
            self.watcher.ended(done)

    def _is_missing(self, job: Job) -> bool:
        """Whether it is to be trained: it never was, or its test is still to be read and its student is gone."""
        if self.log.trained(job.trial, job.seed) is None:
            return True
        return job.keep and self._is_unread(job) and not _is_kept(job)

    def _is_unread(self, job: Job) -> bool:
        """Whether there is a student for which the test split was not read."""
        trained = self.log.value(job.trial, job.seed) is not None
        return trained and self.log.find(TEST, job.trial, job.seed) is None

    def _read_test(self, jobs: Sequence[Job]) -> None:
        """Read the test split, once for each student."""
        students = [job for job in jobs if self.log.value(job.trial, job.seed) is not None]
        unread = [job for job in students if self._is_unread(job)]
        self.watcher.stage("reading test", len(students), len(students) - len(unread))
        for done in self.workers.each(read_test, unread):
            self.log.add(done)
            self.watcher.ended(done)

    def _bring_home(self, trial: Trial, job: Job, document: Document) -> None:
        """Make the run's `best/` the student of this job, with what is known now."""
        facts = read_json(job.folder / BEST / FACTS) | {
            "search": search_facts(self.results, trial),
            "confirmation": {name: entry for name, entry in document.items() if name != "candidates"},
            "test_readings": [
                {"time": done.time, "metrics": done.metrics}
                for done in self.log.readings
                if (done.trial, done.seed) == (job.trial, job.seed)
            ],
        }
        bring_home(self.results, trial, job.folder / BEST, facts, str(facts["metric"]))

    def _clear(self, best: Trial) -> None:
        """Remove the students but the winner's: with more seeds another of them may be the median."""
        for folder in (self.results.folder / FOLDER / STUDENTS).glob("*-*"):
            if not folder.name.startswith(f"{best.number:04d}-"):
                shutil.rmtree(folder, ignore_errors=True)


def _size(plan: Plan) -> str:
    """How much is to be trained."""
    deciding = len(plan.candidates) * len(plan.deciding)
    reporting = len(plan.settings(plan.candidates[0])) * len(plan.reporting)
    return f"{deciding} trainings decide, then {reporting} report" if deciding else f"{reporting} trainings report"


def _is_kept(job: Job) -> bool:
    return (job.folder / BEST / FACTS).is_file()


def _facts_of(run: Path) -> dict[str, object]:
    """What the run's `best/` says of itself so far."""
    return read_json(run / BEST / METRICS) if (run / BEST / METRICS).is_file() else {}
