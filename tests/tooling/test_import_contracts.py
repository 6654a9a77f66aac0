"""The import contracts of pyproject.toml cover the whole house: a new room cannot be left out in silence."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def contract(name):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (found,) = (one for one in settings["contracts"] if one["name"].startswith(name))
    return found


def test_every_room_of_the_gateway_is_forbidden_torch():
    rooms = {
        path.stem for path in (ROOT / "server").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    listed = {name.removeprefix("server.") for name in contract("Only the engine's process")["source_modules"]}
    assert listed == rooms - {"__init__", "worker"}


def test_no_contract_ignores_more_than_one_import():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert max(len(one.get("ignore_imports", [])) for one in settings["contracts"]) == 1
