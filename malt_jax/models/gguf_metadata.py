"""The metadata of GGUF files; whatever is wrong with it is said with the file's name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from gguf import GGUFReader

from malt_jax.workdir.storage import check_regular

T = TypeVar("T")


def open_file(file: Path) -> GGUFReader:
    """Reads metadata and the list of tensors. Raises ValueError if it is not a whole GGUF file."""
    check_regular(file)
    with _naming(file):
        return GGUFReader(file)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Whatever metadata that no writer wrote makes of the libraries, as a ValueError that names the
    file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(file) in str(error):
            raise
        raise ValueError(
            f"{file}: not a readable GGUF file ({type(error).__name__}: {error})"
        ) from error


def named(read: Callable[[GGUFReader], T]) -> Callable[[GGUFReader], T]:
    """`read`, whose errors name the file."""

    @wraps(read)
    def reading(reader: GGUFReader) -> T:
        with _naming(path(reader)):
            return read(reader)

    return reading


def architecture(reader: GGUFReader) -> str:
    """What the names of the model's own metadata begin with."""
    return str(value(reader, "general.architecture"))


def path(reader: GGUFReader) -> Path:
    """The file."""
    return Path(str(reader.data.filename))


def value(reader: GGUFReader, key: str, default: Any = None) -> Any:
    """What a key holds, or `default` where there is no such key."""
    field = reader.get_field(key)
    return default if field is None else field.contents()


def needed(reader: GGUFReader, key: str) -> Any:
    """What a key holds. Raises ValueError naming it if it is missing."""
    if (content := value(reader, key)) is None:
        raise ValueError(f"{path(reader)}: {key} is missing")
    return content
