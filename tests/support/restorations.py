"""What a benchmark restores, in the order in which it keeps the results."""

from basicsr_ext.benchmark.run.store import Store


def kept_restorations(monkeypatch, watch=lambda kept: None):
    """A list that gets the method and image of every restoration that is kept; ``watch`` is called before each."""
    kept, write = [], Store.write_note

    def noted(store, path, note):
        if "seconds" in note and "measured" not in note:
            watch(kept)
            kept.append((path.parts[-3], path.stem))
        write(store, path, note)

    monkeypatch.setattr(Store, "write_note", noted)
    return kept
