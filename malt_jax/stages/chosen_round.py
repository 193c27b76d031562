"""The best round's adapters as the run's own, in `export/`, and what was answered by them."""

from pathlib import Path

from absl import logging

from malt_jax import export
from malt_jax.config.settings import Settings
from malt_jax.learn.phases import PHASES
from malt_jax.workdir import rounds, storage
from malt_jax.workdir.storage import read_json

_ANSWERED = ("malt", "critique-other", "critique-none")  # below eval/, by the trained team


def promote(workdir: Path, settings: Settings) -> None:
    """Makes `export/` hold what the chosen round of `rounds/rounds.json` exported.

    Where it held another round's, what that team answered goes to `rounds/K/answers`, and comes
    back if that round is chosen again. Killed between any two files, it goes on from there: the
    last role's export is replaced last, and answers leave before the first one is.
    """
    number = int(read_json(rounds.table(workdir))["chosen"])
    chosen = rounds.directory(workdir, number)
    roles = [role for role in settings.chain if settings.roles[role].train]
    before = export.round_of(workdir, roles[-1])
    if before not in (0, number):
        _move_answers(workdir, rounds.directory(workdir, before))
    for phase in (name for name, phase in PHASES.items() if phase.exported):
        for role in roles:
            _replace(chosen, workdir, role, number, phase)
    for role in roles:
        _replace(chosen, workdir, role, number)
    _bring_back(chosen, workdir)
    logging.info("round %d is the best on the development split; its team is exported", number)


def _replace(source: Path, workdir: Path, role: str, number: int, phase: str = "") -> None:
    if export.exists(source, role, phase):
        export.copied(source, workdir, role, phase, number)
    elif export.exists(workdir, role, phase):
        storage.remove(workdir / "export" / phase / role)


def _folders(workdir: Path) -> list[Path]:
    return [workdir / "eval" / split / name for split in ("", "development") for name in _ANSWERED]


def _move_answers(workdir: Path, of_round: Path) -> None:
    for folder in _folders(workdir):
        _copy(folder, of_round / "answers" / folder.relative_to(workdir / "eval").as_posix())
        if folder.exists():
            storage.remove(folder)


def _bring_back(of_round: Path, workdir: Path) -> None:
    for folder in _folders(workdir):
        _copy(of_round / "answers" / folder.relative_to(workdir / "eval").as_posix(), folder)


def _copy(source: Path, target: Path) -> None:
    """Copies the files that are not there yet, each whole or not at all."""
    for file in storage.files(source):
        copy = target / file.relative_to(source).as_posix()
        if not copy.exists():
            with storage.written_whole(copy) as stream:
                stream.write(file.read_bytes())
