"""A process of its own that compares two expressions by math-verify: a line of JSON in, a line out.

It is run by its file's name and imports nothing of ours, so that it starts in a second and holds no model. Who asks it
may kill it: a power such as 9^{9^9} cannot be interrupted from within.
"""

from __future__ import annotations

import json
import logging
import sys

_SECONDS = 2


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    except (ImportError, OSError, ValueError):
        pass  # no such limit on this system; the asker's time limit stays


def main() -> None:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    _limit_memory()
    kinds = [LatexExtractionConfig(), ExprExtractionConfig()]
    for line in sys.stdin:
        try:
            one, other = json.loads(line)
            left, right = (
                parse(f"${text}$", kinds, fallback_mode="no_fallback", parsing_timeout=_SECONDS)
                for text in (one, other)
            )
            # The comparison is not symmetric (an equation against its right side), equivalence is.
            same = any(
                bool(a) and bool(b) and verify(a, b, timeout_seconds=_SECONDS, allow_set_relation_comp=True)
                for a, b in ((left, right), (right, left))
            )
        except Exception:  # sympy raises every kind of error on what is no mathematics
            same = False
        sys.stdout.write(json.dumps(same) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
