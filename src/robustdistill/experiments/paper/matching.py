"""Which record of a journal is the run of which job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from robustdistill.experiments.grid import Job, specs
from robustdistill.experiments.journal import Record

if TYPE_CHECKING:
    from robustdistill.data.splits import Splits


def records_of(jobs: Sequence[Job], records: Iterable[Record], splits: Splits) -> dict[Job, Record]:
    """The finished ones of `jobs` with their records, by the hash of the spec; other plans may share the journal.

    Args:
        jobs: of one plan, a student's teacher before it.
        records: of the journal.
        splits: the jobs' data.
    """
    by_hash = {record.hash: record for record in records}
    found = {job: spec.hash for job, spec in specs(jobs, splits).items()}
    return {job: by_hash[hash_of] for job, hash_of in found.items() if hash_of in by_hash}
