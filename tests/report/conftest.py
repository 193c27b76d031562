from pathlib import Path

import pytest
from planted import write_run


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """The work directory of a whole run that MALT wins."""
    write_run(tmp_path)
    return tmp_path
