"""Readers: every known format becomes `dreamprm.data.record.Record`.

read            records of a file from beginning to end
open_records    a stream: by number, shuffled over all files, split by question, taken up in the middle
recognise       the name of a file's format
FORMATS         all formats by name
load_image      a record's image as RGB, within limits
"""

from dreamprm.choices import OnBadRow as OnBadRow
from dreamprm.data.readers._read import read as read
from dreamprm.data.readers._read import recognise as recognise
from dreamprm.data.readers.bad import BadRows as BadRows
from dreamprm.data.readers.fields import DataError as DataError
from dreamprm.data.readers.images import ImageError as ImageError
from dreamprm.data.readers.images import image_size as image_size
from dreamprm.data.readers.images import load_image as load_image
from dreamprm.data.readers.registry import FORMATS as FORMATS
from dreamprm.data.readers.stream import RecordStream as RecordStream
from dreamprm.data.readers.stream import open_records as open_records
