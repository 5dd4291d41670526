"""What `prepare-faces --reviewed` does, as a function to call from a notebook: a new version of a catalog."""

from pathlib import Path

from edge_runtime.errors import UsageError
from edge_runtime.paths import expand
from edge_runtime.review.database import ReviewDatabase
from edge_runtime.review.sealing import PrivateKey
from train.commands.output import full_disk_reported, output_folder
from train.commands.prepare import Prepared, audit_catalog
from train.data.build import load_data
from train.data.catalog import CATALOG, QUARANTINE, SEED, SHARES
from train.data.reviewed import add_reviewed, version_notes
from train.data.splits import Share
from train.parallel import progress_bar


def prepare_reviewed(
    reviewed: Path,
    base: Path,
    out: Path,
    *,
    split: str = SHARES,
    seed: int = SEED,
    private_key: Path | None = None,
) -> Prepared:
    """Write the catalog `base` with the faces of a review database into `out`, and audit it.

    Args:
        reviewed: the database.
        base: the catalog, or the folder that holds it; the last version, if there was one, so that its splits stay.
        out: another folder than that of `base`.
        split: shares of the reviewed faces; that of test is frozen, see `add_reviewed`.
        seed: of the draw.
        private_key: opens pictures that are encrypted.

    Raises:
        DataError: the catalog or the database can't be used, or no face was reviewed.
        UsageError: `out` is the base's folder or can't be written to, no share is frozen, or the key can't be used.
    """
    share = Share.parse(split)
    if not share.test:
        raise UsageError(f"--split {split}: no share for test, which is never trained on; give three, as in {SHARES}")
    out = output_folder(out)
    home = expand(base) if expand(base).is_dir() else expand(base).parent
    if out.resolve() == home.resolve():
        raise UsageError(f"--out {out}: holds the old catalog, which stays; choose another folder")
    database = ReviewDatabase(reviewed)
    key = PrivateKey(expand(private_key)) if private_key else None
    old = load_data(expand(base))
    with full_disk_reported(out):
        out.mkdir(parents=True, exist_ok=True)
        with progress_bar("copying", len(database.faces())) as advance:
            version = add_reviewed(old, database, out, share, seed, key=key, advance=advance)
        (out / QUARANTINE).unlink(missing_ok=True)
        version.catalog.write(out / CATALOG)
        audit = audit_catalog(version.catalog, out)
    return Prepared(catalog=version.catalog, audit=audit, gaps=(), notes=version_notes(version), small={})
