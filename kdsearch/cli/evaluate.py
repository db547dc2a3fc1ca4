"""`kdsearch evaluate`: an exported student measured again, and put to the test beyond its own images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kdsearch.cli import options
from kdsearch.cli.output import print_json, say, score
from kdsearch.cli.runs import AsJson
from kdsearch.errors import InvalidSetting


def evaluate(
    export: Annotated[str, typer.Argument(help="Folder of an export, such as runs/NAME/best.", metavar="DIR")],
    split: Annotated[str, typer.Option("--split", help="val or test; each reading of test is counted.")] = "val",
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Accuracy under the 15 corruptions of CIFAR-C at 5 severities.")
    ] = False,
    corruptions_root: Annotated[
        Path | None,
        typer.Option("--corruptions-root", help="The published CIFAR-10-C or -100-C instead.", metavar="DIR"),
    ] = None,
    fgsm: Annotated[
        str | None, typer.Option("--fgsm", help="Accuracy after FGSM with these ε of [0, 1].", metavar="ε,…")
    ] = None,
    pgd: Annotated[
        str | None, typer.Option("--pgd", help="Accuracy after 10 steps of PGD within these ε.", metavar="ε,…")
    ] = None,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Calibration error, and the temperature that mends it.")
    ] = False,
    latency: Annotated[bool, typer.Option("--latency", help="Time of one image on this machine.")] = False,
    data_root: options.DataRoot = None,
    allow_code: options.AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Measure an exported student again, and beyond: corrupted or attacked images, confidence, speed."""
    sizes = {"fgsm": _sizes("--fgsm", fgsm), "pgd": _sizes("--pgd", pgd)}
    from kdsearch.training.evaluation import Questions, evaluate_export

    questions = Questions(
        corruptions=corruptions,
        corruptions_root=corruptions_root,
        calibration=calibration,
        latency=latency,
        **sizes,
    )
    answer = evaluate_export(export, split, data_root, questions, allow_code=allow_code)
    if as_json:
        print_json(answer)
        return
    for line in _lines(answer):
        say(line)
    if answer["test_readings"]:
        times = "time" if answer["test_readings"] == 1 else "times"
        say(f"The test split has been read {answer['test_readings']} {times} for this student.", "dim")


def _sizes(option: str, text: str | None) -> tuple[float, ...]:
    """The ε of an option. Raises InvalidSetting unless they are numbers in (0, 1]."""
    if text is None:
        return ()
    try:
        sizes = tuple(float(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(0 < size <= 1 for size in sizes):
        raise InvalidSetting(option, text, "must be numbers above 0 and up to 1 with commas between, such as 0.01,0.03")
    return sizes


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    yield f"{answer['split']}: {', '.join(f'{name} {score(value)}' for name, value in answer['metrics'].items())}"
    if found := answer.get("corruptions"):
        yield ""
        yield f"Accuracy under corruption ({found['images']}), severities 1 to 5:"
        width = max(map(len, found["by_corruption"]))
        rows = {**found["by_corruption"], "mean": found["by_severity"]}
        for name, values in rows.items():
            yield f"  {name:{width}}  {'  '.join(f'{value:.4f}' for value in values)}"
        yield f"Mean over all: {found['mean']:.4f}"
        yield ""
    for name in ("fgsm", "pgd"):
        if found := answer.get(name):
            yield f"{name.upper()}: {', '.join(f'accuracy {value:.4f} at ε = {size}' for size, value in found.items())}"
    if found := answer.get("calibration"):
        yield (
            f"Calibration error {found['ece']:.4f}, with a temperature of {found['temperature']:.2f} "
            f"{found['ece_after']:.4f} (fitted to the other half of the images)"
        )
    if found := answer.get("latency"):
        yield (
            f"One image takes {1000 * found['seconds']:.3g} ms "
            f"({found['device']}, {found['threads']} thread, median of {found['forwards']})"
        )
