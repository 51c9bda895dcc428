"""Which images a split holds, by identity: the name of the file, without folder and suffix.

Folders and suffixes differ between copies of a data set, and ICAA17K keeps one photograph in
several folders; the name is what its authors identify a photograph by.
"""

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def identities(table: pd.DataFrame) -> pd.Series:
    """The identity of each row's image: (N,) str."""
    names = table["image"].str.rsplit("/", n=1).str[-1]
    return names.str.replace(r"\.[^.]*$", "", regex=True).str.casefold()


def fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 (hex) of the distinct identities in a table, whatever their order or labels."""
    distinct = sorted(set(identities(table)))
    return hashlib.sha256("\n".join(distinct).encode()).hexdigest()


def identity_hashes(table: pd.DataFrame) -> NDArray[np.int64]:
    """One number per distinct identity, sorted: 8 bytes an image, small enough for a checkpoint."""
    digests = [
        hashlib.blake2b(name.encode(), digest_size=8).digest() for name in set(identities(table))
    ]
    return np.sort(np.frombuffer(b"".join(digests), dtype=np.int64))


def count_seen(table: pd.DataFrame, trained_on: NDArray[np.int64]) -> int:
    """Count the distinct images of a table that ``identity_hashes`` list."""
    return int(np.isin(identity_hashes(table), trained_on).sum())
