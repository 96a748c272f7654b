"""Keys are unique, rows are stable."""

import pytest

from dreamprm.data.dataset import Dataset
from dreamprm.data.record import RecordError


def test_rows_keys_and_domains(make_record):
    data = Dataset([make_record("a", domain="z"), make_record("b", labels=(1.0, None)), make_record("c", domain="k")])
    assert data.keys == ["a", "b", "c"]
    assert data.row("c") == 2
    assert data.domains == ["k", "sum", "z"]
    assert [record.key for record in data[1:]] == ["b", "c"]
    assert data.trainable().keys == ["b"]


def test_one_key_twice_is_refused(make_record):
    with pytest.raises(RecordError, match=r"test, key: keys must be unique, but these repeat: '-1' \(3 times\)"):
        Dataset([make_record("-1"), make_record("x"), make_record("-1"), make_record("-1")])
