"""The front door: every name is there, and importing it costs nothing."""

import subprocess
import sys

import pytest

import dreamprm


def test_every_name_of_the_table_of_contents():
    for name in set(dreamprm.__all__) - {"__version__"}:
        assert getattr(dreamprm, name).__name__ == name
    assert set(dir(dreamprm)) >= set(dreamprm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'PRN'; it has PRM, Batch"):
        _ = dreamprm.PRN


def test_importing_is_free():
    code = "import sys, dreamprm; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
