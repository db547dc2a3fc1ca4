"""The life of a search: one quiet display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from kdsearch import tasks
from kdsearch.cli.output import console, duration, safe, say, score, setting
from kdsearch.results.results import rank
from kdsearch.students import joined

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType
    from rich.live import Live

    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.results import Results, Trial
    from kdsearch.results.results import Rank
    from kdsearch.tuning.trials import LiveTrial

REFRESHES_A_SECOND = 4
SECONDS_BETWEEN_LINES = 15
"""Without a terminal: how long it is quiet at most while trials report."""
ROWS = 8
"""Running trials that are shown one by one."""


class Display:
    """A watcher that shows a search: trials by state, the best so far, epochs spent, time left."""

    def __init__(self, experiment: Experiment, earlier: Results | None = None) -> None:
        self._experiment = experiment
        self._task = tasks.find(experiment.task)
        self._sign = 1 if self._task.mode == "max" else -1
        self._running: dict[int, LiveTrial] = {}
        self._ended: Counter[str] = Counter()
        self._epochs = 0
        self._best: tuple[Rank, float, LiveTrial | Trial] | None = None
        self._note = "preparing"
        self._started = self._spoke = time.time()
        self._first_trial: float | None = None
        self._console = console()
        self._live: Live | None = None
        self._ended_before = 0
        if earlier is not None:
            self._take_up(earlier)

    def _take_up(self, earlier: Results) -> None:
        """Begin with what a run that goes on had reached."""
        self._ended.update({state: count for state, count in earlier.counts.items() if state != "RUNNING"})
        self._ended_before = sum(self._ended.values())
        self._epochs = sum(trial.epochs for trial in earlier.trials)
        if earlier.best is not None and earlier.best.best is not None:
            self._consider(earlier.best.best, earlier.best, earlier.best.epochs)

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=REFRESHES_A_SECOND,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def announce(self, sentence: str) -> None:
        """What goes on beside the trials."""
        self._note = sentence
        if self._live is None:
            say(sentence)

    def trial_started(self, trial: LiveTrial) -> None:
        self._first_trial = self._first_trial or time.time()
        self._note = ""
        self._running[trial.number] = trial

    def epoch_told(self, trial: LiveTrial, report: Report) -> None:
        self._epochs += 1
        best = max(trial.values.values(), key=lambda value: self._sign * value, default=report.value)
        self._consider(best, trial, len(trial.values))
        if self._live is None and time.time() - self._spoke > SECONDS_BETWEEN_LINES:
            self._speak(f"{len(self._running)} running | {self._best_text()} | {self._progress_text()}")

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None:
        self._running.pop(trial.number, None)
        self._ended[trial.state] += 1
        if value is not None and trial.error is None:
            self._consider(value, trial, len(trial.values))
        if self._live is None:
            self._speak(self._line(trial, value))

    def _speak(self, line: str) -> None:
        self._spoke = time.time()
        say(line)

    def _consider(self, value: float, trial: LiveTrial | Trial, epochs: int) -> None:
        """The best is whom `kdsearch best` would name: a complete trial; until there is one, among the furthest."""
        place = rank(trial.number, trial.state, epochs, value, self._task.mode)
        if self._best is None or place < self._best[0]:
            self._best = place, value, trial

    def _line(self, trial: LiveTrial, value: float | None) -> str:
        role = f" ({trial.role})" if trial.role != "search" else ""
        what = f"trial {trial.number}{role} {trial.state.lower()} after {len(trial.values)} epochs: {score(value)}"
        if trial.error:
            what = f"trial {trial.number}{role} failed: {safe(trial.error)}"
        return " | ".join([what, self._best_text(), self._progress_text()])

    def _best_text(self) -> str:
        if self._best is None:
            return "no result yet"
        _, value, trial = self._best
        return f"best {score(value)} (trial {trial.number})"

    def _progress_text(self) -> str:
        ended, planned = sum(self._ended.values()), self._experiment.search.trials
        parts = [f"{ended}/{planned} ended", f"{self._epochs} epochs"]
        if ended > self._ended_before and self._first_trial:
            each = (time.time() - self._first_trial) / (ended - self._ended_before)
            parts.append(f"about {duration(each * max(0, planned - ended))} left")
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        experiment = self._experiment
        student = joined(experiment.students) or experiment.student.name
        title = " · ".join((experiment.method, student, experiment.data.name))
        ended, planned = sum(self._ended.values()), experiment.search.trials
        filled = round(24 * min(1.0, ended / planned))
        states = [f"{len(self._running)} running"]
        states += [f"{self._ended[state]} {state.lower()}" for state in ("COMPLETE", "PRUNED", "FAILED")]
        lines = [
            Text(f"{title}   {duration(time.time() - self._started)}", style="bold"),
            Text(f"{'━' * filled}{'╌' * (24 - filled)}  {' · '.join(states)}"),
            Text(self._progress_text()),
        ]
        if self._note:
            lines.append(Text(self._note, style="dim"))
        if self._best is not None:
            _, value, trial = self._best
            named = setting(trial.hyperparameters, list(experiment.dimensions))
            lines.append(Text(f"best {score(value)}  trial {trial.number}  {named}", style="green"))
        for trial in list(self._running.values())[:ROWS]:
            lines.append(Text(self._running_line(trial), style="dim"))
        return Group(*(Text.assemble(line, no_wrap=True, overflow="ellipsis") for line in lines))

    def _running_line(self, trial: LiveTrial) -> str:
        epochs = self._experiment.search.trial_epochs(self._experiment.training.epochs)
        named = setting(trial.hyperparameters, list(self._experiment.dimensions))
        return f"  trial {trial.number:<4} epoch {len(trial.values):>3}/{epochs}  {score(trial.last):>7}  {named}"
