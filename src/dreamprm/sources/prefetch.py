"""The chains of the next update, encoded in a thread while the update before them is computed.

Which they are is known: the samplers' next draws. They are encoded by the same code, from the same records, so that a
run is the same to the last bit with and without; what is begun ahead is no part of a checkpoint, and a resumed run
begins anew. The thread has a processor of its own, since tokenizers are not made for two.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from dreamprm.data.record import Record

if TYPE_CHECKING:
    from dreamprm.prm.collate import Collator, Encoded

__all__ = ["Prefetch"]

_Pair = tuple[Record, "Encoded"]


class Prefetch:
    """`take` gives records and their encodings; those that were expected may be ready by then.

    What is expected and not yet taken is held: an update's chains, beside the collator's own cache.
    """

    def __init__(self) -> None:
        # By identities, of objects that are held beside, so that no other one has the same.
        self._begun: dict[tuple[int, int], tuple[Sequence[Record], Future[_Pair]]] = {}
        self._own: dict[int, tuple[Collator, Collator]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def expect(self, collate: Collator, records: Sequence[Record], rows: Sequence[int]) -> None:
        """These rows will be taken, in this order, after all that were expected before them."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="chains")
        if id(collate) not in self._own:
            own = replace(collate, processor=copy.deepcopy(collate.processor), cache=0)
            self._own[id(collate)] = (collate, own)
        for row in rows:
            if (id(records), row) not in self._begun:
                future = self._pool.submit(_encode, *self._own[id(collate)], records, row)
                self._begun[id(records), row] = (records, future)

    def take(self, collate: Collator, records: Sequence[Record], row: int) -> _Pair:
        """One row. Raises what reading or encoding it raises, when it is taken."""
        begun = self._begun.pop((id(records), row), None)
        if begun is None:
            record = records[row]
            return record, collate.encode(record)
        record, encoded = begun[1].result()
        collate.keep(record, encoded)
        return record, encoded

    def forget(self) -> None:
        """Nothing is expected any more."""
        for _, future in self._begun.values():
            future.cancel()
        self._begun.clear()

    def close(self) -> None:
        """Forget what was expected, and end the thread."""
        self.forget()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _encode(collate: Collator, own: Collator, records: Sequence[Record], row: int) -> _Pair:
    record = records[row]
    return record, collate.kept(record) or own.encode(record)
