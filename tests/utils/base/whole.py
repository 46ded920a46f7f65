"""How tests look at what is written whole: modes, an interruption, the old folder."""

import stat
from pathlib import Path

USUAL = {
    0o022: (0o755, 0o644),
    0o077: (0o700, 0o600),
    0o027: (0o750, 0o640),
}  # umask -> modes of folders and of files


class Interrupted(Exception):
    pass


def check_modes(folder: Path, umask: int) -> None:
    folders, plain = USUAL[umask]
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 2
    found = {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert found == {
        str(path.relative_to(folder)): folders if path.is_dir() else plain for path in paths
    }


def old_folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "here" / "model"
    folder.mkdir(parents=True)
    (folder / name).write_text("old")
    return folder


def check_old(folder: Path, name: str) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "no litter"
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "old"
