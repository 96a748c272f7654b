"""The data room: records, readers, collation."""
